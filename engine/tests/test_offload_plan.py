"""How a budget is divided among maps that stay and maps that come by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples
from treespec.errors import CapacityError
from treespec.model.offload.plan import MIB, OffloadPlan, UnitSize, plan_offload


def sizes(*num_bytes: int) -> list[UnitSize]:
    return [UnitSize(f"map {index}", size, size, size) for index, size in enumerate(num_bytes)]


def planned(units: list[UnitSize], fixed: int, reserve: int) -> OffloadPlan:
    return plan_offload("disk", units, fixed, reserve, "a model")


@given(
    num_bytes=st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    fixed=st.integers(0, 500),
    reserve=st.integers(1, 20_000),
)
@examples(200)
def test_everything_on_the_device_fits_the_budget_and_nothing_is_lost(
    num_bytes: list[int], fixed: int, reserve: int
) -> None:
    units = sizes(*num_bytes)
    try:
        plan = planned(units, fixed, reserve)
    except CapacityError:
        assert fixed + min(2 * max(num_bytes), sum(num_bytes)) > reserve
        return
    assert plan.resident_bytes + plan.num_slots * plan.slot_bytes <= reserve
    assert plan.resident_bytes + plan.streamed_bytes == fixed + sum(num_bytes)
    assert (plan.num_slots == 0) == (plan.streamed_bytes == 0)
    left = reserve - fixed - plan.num_slots * max(num_bytes) - (plan.resident_bytes - fixed)
    streamed = [unit.resident for unit, stays in zip(units, plan.is_resident, strict=True) if not stays]
    assert not streamed or streamed[0] > left, "as many stay as fit"


def test_a_model_that_fits_stays() -> None:
    plan = planned(sizes(5, 5, 5), 5, 20)
    assert (plan.num_slots, plan.streamed_bytes, plan.resident_bytes) == (0, 0, 20)


def test_three_maps_are_under_way_where_there_is_room_and_two_where_there_is_not() -> None:
    assert planned(sizes(5, 5, 5, 5, 5), 0, 15).num_slots == 3
    assert planned(sizes(5, 5, 5, 5, 5), 0, 14).num_slots == 2
    assert planned(sizes(5, 5, 5, 5, 5), 0, 10).streamed_bytes == 25


def test_the_first_maps_stay() -> None:
    assert planned(sizes(*[1] * 20), 0, 13).is_resident == (True,) * 10 + (False,) * 10


def test_a_budget_that_is_too_small_names_the_least_that_would_do() -> None:
    message = (
        "the budget for weights on the device is too small to stream this model; where: a model; received: "
        "offload_reserve_mib 1; allowed: at least 9: 2.0 MiB of tables and norms, and 2 times the largest map, "
        "3.0 MiB; fix: raise offload_reserve_mib, or quantise the model to fewer bits"
    )
    units = sizes(3 * MIB, 2 * MIB, 3 * MIB, 3 * MIB)
    with pytest.raises(CapacityError) as told:
        planned(units, 2 * MIB + 1, MIB)
    assert str(told.value) == message
    assert planned(units, 2 * MIB + 1, 9 * MIB).num_slots == 2
