"""Ownership of cache slots; torch-free.

A request owns one region of consecutive slots. Its first ``context_length`` slots hold committed tokens. A forward
run leases the slots after them (or after its parent run's lease); only ``commit`` turns leased slots into context.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Lease:
    """Consecutive speculative slots of one run; ``start`` counts from the end of the region's context."""

    region: int
    start: int
    num_slots: int
    parent: Lease | None = None


@dataclass
class _Region:
    context_length: int = 0
    leases: list[Lease] = field(default_factory=list)


@dataclass(frozen=True)
class SlotMoves:
    """Copies that a commit asks of the pool: slot ``sources[i]`` to ``targets[i]``, read before any is written."""

    sources: np.ndarray  # int64
    targets: np.ndarray  # int64

    @classmethod
    def together(cls, moves: Sequence[SlotMoves]) -> SlotMoves:
        """Copies of several regions."""
        return cls(np.concatenate([m.sources for m in moves]), np.concatenate([m.targets for m in moves]))


class SlotAllocator:
    """Hands out regions, leases and commits; every misuse is a bug of ours and asserts."""

    def __init__(self, num_regions: int, region_capacity: int) -> None:
        self.num_regions = num_regions
        self.region_capacity = region_capacity
        self._free = list(range(num_regions))
        self._regions: dict[int, _Region] = {}

    @property
    def num_free_regions(self) -> int:
        """Regions that ``admit`` can still give."""
        return len(self._free)

    def admit(self) -> int:
        """The lowest free region, empty: low numbers keep a batch's regions adjacent."""
        assert self._free, "no free region: the scheduler admitted too many requests"
        region = heapq.heappop(self._free)
        self._regions[region] = _Region()
        return region

    def context_length(self, region: int) -> int:
        """Committed slots of a region."""
        return self._regions[region].context_length

    def lease(self, region: int, num_slots: int, parent: Lease | None = None) -> Lease:
        """Slots for a run: right after the context, or after the parent run's slots."""
        state = self._regions[region]
        assert parent is None or parent in state.leases, "the parent run's lease is gone"
        start = 0 if parent is None else parent.start + parent.num_slots
        assert all(other.start + other.num_slots <= start for other in state.leases), "another run holds these slots"
        assert state.context_length + start + num_slots <= self.region_capacity, "a region overflows"
        lease = Lease(region, start, num_slots, parent)
        state.leases.append(lease)
        return lease

    def slots(self, lease: Lease) -> np.ndarray:
        """Slot numbers of a lease, int64."""
        first = self._speculative_base(lease.region) + lease.start
        return np.arange(first, first + lease.num_slots, dtype=np.int64)

    def release(self, lease: Lease) -> None:
        """Give a drained run's slots back; its children must have been released."""
        leases = self._regions[lease.region].leases
        assert not any(other.parent is lease for other in leases), "a child run still holds slots"
        leases.remove(lease)

    def commit(self, region: int, offsets: Sequence[int]) -> SlotMoves:
        """Make the leased slots at ``offsets`` (from the context's end, ascending) context; ends all leases.

        The caller guarantees that every run on the region has drained.
        """
        state = self._regions[region]
        num_leased = max((lease.start + lease.num_slots for lease in state.leases), default=0)
        assert all(a < b for a, b in pairwise(offsets)), "a path ascends"
        assert not offsets or offsets[-1] < num_leased, "only leased slots can be committed"
        sources = np.asarray(offsets, dtype=np.int64)
        targets = np.arange(len(offsets), dtype=np.int64)
        base = self._speculative_base(region)
        moved = sources != targets
        state.leases.clear()
        state.context_length += len(offsets)
        return SlotMoves(base + sources[moved], base + targets[moved])

    def free(self, region: int) -> None:
        """Return a region; its runs have drained."""
        assert not self._regions[region].leases, "a run still holds slots of this region"
        del self._regions[region]
        heapq.heappush(self._free, region)

    def _speculative_base(self, region: int) -> int:
        return region * self.region_capacity + self._regions[region].context_length
