"""Which maps stay on the device and which come by, decided from sizes alone; torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from treespec.errors import CapacityError

MIB = 1 << 20
SLOTS = (3, 2)
"""Maps on the device at once that are under way: one in use and others arriving. Three keep the reader busy where a
large map follows a small one; two are the least that overlap reading with computing."""


@dataclass(frozen=True)
class UnitSize:
    """A map: bytes that come by in every pass when it does not stay, bytes it takes when it does."""

    name: str
    streamed: int
    slot: int  # streamed, with its parts aligned
    resident: int


@dataclass(frozen=True)
class OffloadPlan:
    """A device budget divided up. Bytes of one rank."""

    source: str
    reserve_bytes: int
    fixed_bytes: int  # tables, norms, biases: always on the device
    units: tuple[UnitSize, ...]  # in the order of their use
    is_resident: tuple[bool, ...]
    num_slots: int

    @property
    def streamed_bytes(self) -> int:
        """What every pass over the model moves."""
        return sum(unit.streamed for unit, stays in zip(self.units, self.is_resident, strict=True) if not stays)

    @property
    def resident_bytes(self) -> int:
        """What stays: tables, norms and the maps that fit."""
        stay = (unit.resident for unit, stays in zip(self.units, self.is_resident, strict=True) if stays)
        return self.fixed_bytes + sum(stay)

    @property
    def slot_bytes(self) -> int:
        """A slot holds any of the maps that come by."""
        return max(
            (unit.slot for unit, stays in zip(self.units, self.is_resident, strict=True) if not stays), default=0
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a record."""
        return {
            "source": self.source,
            "reserve_mib": self.reserve_bytes / MIB,
            "resident_bytes": self.resident_bytes,
            "streamed_bytes": self.streamed_bytes,
            "slot_bytes": self.slot_bytes,
            "num_slots": self.num_slots,
            "units": len(self.units),
            "streamed_units": self.is_resident.count(False),
        }


def plan_offload(
    source: str, units: Sequence[UnitSize], fixed_bytes: int, reserve_bytes: int, where: str
) -> OffloadPlan:
    """Keep as many maps as the budget allows beside the slots for the others. Raises CapacityError."""
    everything = fixed_bytes + sum(unit.resident for unit in units)
    if everything <= reserve_bytes:
        return OffloadPlan(source, reserve_bytes, fixed_bytes, tuple(units), (True,) * len(units), 0)
    largest = max(unit.slot for unit in units)
    for num_slots in SLOTS:
        free = reserve_bytes - fixed_bytes - num_slots * largest
        if free >= 0:
            stays = _that_fit(units, free)
            return OffloadPlan(source, reserve_bytes, fixed_bytes, tuple(units), stays, num_slots)
    least = fixed_bytes + SLOTS[-1] * largest
    raise CapacityError(
        "the budget for weights on the device is too small to stream this model",
        where=where,
        received=f"offload_reserve_mib {reserve_bytes / MIB:.3g}",
        allowed=f"at least {-(-least // MIB)}: {fixed_bytes / MIB:.1f} MiB of tables and norms, and {SLOTS[-1]} times "
        f"the largest map, {largest / MIB:.1f} MiB",
        fix="raise offload_reserve_mib, or quantise the model to fewer bits",
    )


def _that_fit(units: Sequence[UnitSize], free: int) -> tuple[bool, ...]:
    """The first ones: a file is read forwards from there, and read-ahead into maps that stay would be for nothing."""
    stays = [used <= free for used in accumulate(unit.resident for unit in units)]
    return tuple(stays)
