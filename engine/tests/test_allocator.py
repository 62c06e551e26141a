"""Slots: no slot is ever owned twice, only commits make context, and only what is free is handed out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.tests.properties import examples
from treespec.kvcache.allocator import Lease, SlotAllocator

NUM_REGIONS, CAPACITY = 4, 24


class AllocatorModel(RuleBasedStateMachine):
    """Drives the allocator beside a plain model of it: what stands in every slot."""

    @initialize()
    def start(self) -> None:
        self.allocator = SlotAllocator(NUM_REGIONS, CAPACITY)
        self.memory = np.full(NUM_REGIONS * CAPACITY, -1)
        self.context: dict[int, list[int]] = {}  # region -> the values that were committed, in order
        self.leases: dict[int, list[Lease]] = {}
        self.next_value = 0

    def a_region(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.context)))

    @precondition(lambda self: len(self.context) < NUM_REGIONS)
    @rule()
    def admit(self) -> None:
        region = self.allocator.admit()
        assert region == min(set(range(NUM_REGIONS)) - set(self.context)), "the lowest free region"
        self.context[region], self.leases[region] = [], []

    @precondition(lambda self: self.context)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        region = self.a_region(data)
        parent = self.leases[region][-1] if self.leases[region] else None
        start = 0 if parent is None else parent.start + parent.num_slots
        room = CAPACITY - len(self.context[region]) - start
        if room < 1:
            return
        lease = self.allocator.lease(region, data.draw(st.integers(1, min(room, 6))), parent)
        slots = self.allocator.slots(lease)
        # A forward pass writes its keys there.
        self.memory[slots] = np.arange(self.next_value, self.next_value + len(slots))
        self.next_value += len(slots)
        self.leases[region].append(lease)

    @precondition(lambda self: any(self.leases.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        region = data.draw(st.sampled_from([region for region, leases in self.leases.items() if leases]))
        self.allocator.release(self.leases[region].pop())

    @precondition(lambda self: self.context)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        region = self.a_region(data)
        slots = np.concatenate([self.allocator.slots(lease) for lease in self.leases[region]] or [np.empty(0, int)])
        offsets = sorted(data.draw(st.sets(st.integers(0, max(0, len(slots) - 1)), max_size=len(slots))))
        kept = self.memory[slots[offsets]].tolist() if offsets else []
        moves = self.allocator.commit(region, offsets)
        self.memory[moves.targets] = self.memory[moves.sources]
        self.context[region] += kept
        self.leases[region].clear()

    @precondition(lambda self: any(not leases for leases in self.leases.values()))
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        region = data.draw(st.sampled_from([region for region, leases in self.leases.items() if not leases]))
        self.allocator.free(region)
        del self.context[region], self.leases[region]

    @invariant()
    def context_is_what_was_committed(self) -> None:
        for region, values in self.context.items():
            start = region * CAPACITY
            assert self.allocator.context_length(region) == len(values)
            assert self.memory[start : start + len(values)].tolist() == values

    @invariant()
    def no_slot_has_two_owners(self) -> None:
        owners: list[int] = []
        for region, values in self.context.items():
            owned = list(range(region * CAPACITY, region * CAPACITY + len(values)))
            for lease in self.leases[region]:
                owned += self.allocator.slots(lease).tolist()
            assert owned == list(range(region * CAPACITY, region * CAPACITY + len(owned)))
            assert len(owned) <= CAPACITY
            owners += owned
        assert len(set(owners)) == len(owners)
        assert self.allocator.num_free_regions == NUM_REGIONS - len(self.context)


AllocatorModel.TestCase.settings = settings(examples(60), stateful_step_count=40)
TestAllocator = AllocatorModel.TestCase


def leased() -> tuple[SlotAllocator, int, Lease]:
    allocator = SlotAllocator(1, 8)
    region = allocator.admit()
    return allocator, region, allocator.lease(region, 4)


def test_commit_moves_only_what_stands_elsewhere() -> None:
    allocator, region, _ = leased()
    moves = allocator.commit(region, [0, 2, 3])
    assert (moves.sources.tolist(), moves.targets.tolist()) == ([2, 3], [1, 2])


@pytest.mark.parametrize(
    "offsets", [[1, 0], [2, 2], [4]], ids=["not ascending", "one slot twice", "a slot that was not leased"]
)
def test_paths_that_no_tree_has_are_refused(offsets: list[int]) -> None:
    allocator, region, _ = leased()
    with pytest.raises(AssertionError):
        allocator.commit(region, offsets)


def test_more_than_there_is_is_refused() -> None:
    allocator, region, lease = leased()
    with pytest.raises(AssertionError, match="overflows"):
        allocator.lease(region, 5, parent=lease)
    with pytest.raises(AssertionError, match="no free region"):
        allocator.admit()


def test_slots_of_one_run_are_never_leased_to_another() -> None:
    allocator, region, first = leased()
    with pytest.raises(AssertionError, match="another run"):
        allocator.lease(region, 1)
    allocator.lease(region, 1, parent=first)
    with pytest.raises(AssertionError, match="another run"):
        allocator.lease(region, 1, parent=first)


def test_a_run_outlives_neither_its_parent_nor_its_region() -> None:
    allocator, region, parent = leased()
    child = allocator.lease(region, 2, parent)
    with pytest.raises(AssertionError, match="child"):
        allocator.release(parent)
    with pytest.raises(AssertionError, match="still holds"):
        allocator.free(region)
    allocator.release(child)
    allocator.release(parent)
    with pytest.raises(AssertionError, match="gone"):
        allocator.lease(region, 1, parent)
    allocator.free(region)
