"""Where a decoder's maps are kept: all on the device, or as many as a budget allows and the others elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from treespec.model.offload.fillers import DiskFiller, Filler, HostFiller
from treespec.model.offload.plan import OffloadPlan, UnitSize, plan_offload
from treespec.model.offload.stream import OnStreamed, StreamCounts, WeightStream
from treespec.model.units import Layout, Unit
from treespec.ops.linear import WeightStorage

Source = Literal["host", "disk"]
FILLERS: dict[Source, Callable[[Sequence[Unit], torch.device], Filler]] = {"host": HostFiller, "disk": DiskFiller}


class Keeper(Protocol):
    """Takes the maps of a decoder in the order of their use."""

    def keep(self, unit: Unit) -> WeightStorage:
        """What multiplies by this map, once ``finish`` was called."""

    def finish(self, fixed_bytes: int) -> None:
        """There are no more; ``fixed_bytes`` are on the device besides."""


@dataclass(frozen=True)
class Resident:
    """Everything on the device, in the fastest storage it has."""

    dtype: torch.dtype
    device: torch.device

    def keep(self, unit: Unit) -> WeightStorage:
        return resident_storage(unit, self.dtype, self.device)

    def finish(self, fixed_bytes: int) -> None:
        """Nothing is left to do."""


def resident_storage(unit: Unit, dtype: torch.dtype, device: torch.device) -> WeightStorage:
    """Read a map and keep it. Raises CheckpointError."""
    return unit.format.storage([part.read().to(device) for part in unit.parts], dtype)


@dataclass(eq=False)
class _Kept:
    """A map whose place is decided after all of them are known."""

    storage: WeightStorage | None = None

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        assert self.storage is not None, "the keeper has not finished"
        return self.storage.multiply(x, bias)


@dataclass(frozen=True, eq=False)
class _Streamed:
    """A map that comes by."""

    layout: Layout
    stream: WeightStream
    index: int

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        with self.stream.holding(self.index) as parts:
            return self.layout.format.multiply(parts, x, bias)


@dataclass(eq=False)
class Offloader:
    """As many maps on the device as the budget allows, the others streamed from ``source`` in every pass."""

    source: Source
    reserve_bytes: int
    dtype: torch.dtype
    device: torch.device
    where: str  # names the model in errors
    on_streamed: OnStreamed = lambda num_bytes: None  # noqa: ARG005
    plan: OffloadPlan | None = field(default=None, init=False)
    expansion_bytes: int = field(default=0, init=False)
    """What the largest map takes as a plain matrix that is written down otherwise than it is computed with."""
    _kept: list[tuple[Unit, _Kept]] = field(default_factory=list, init=False)
    _stream: WeightStream | None = field(default=None, init=False)

    def keep(self, unit: Unit) -> WeightStorage:
        self._kept.append((unit, _Kept()))
        return self._kept[-1][1]

    def finish(self, fixed_bytes: int) -> None:
        """Raises CapacityError for a budget that is too small, CheckpointError for weights that are no numbers."""
        kept, self._kept = self._kept, []  # units may hold what was made of weights to quantise or to inflate them
        sizes = [_size(unit, self.dtype) for unit, _ in kept]
        self.plan = plan_offload(self.source, sizes, fixed_bytes, self.reserve_bytes, self.where)
        others = (unit.dense_bytes(self.dtype) for unit, _ in kept if unit.parts[0].dtype != self.dtype)
        self.expansion_bytes = max(others, default=0)
        streamed = []
        for (unit, place), stays in zip(kept, self.plan.is_resident, strict=True):
            if stays:
                place.storage = resident_storage(unit, self.dtype, self.device)
            else:
                _require_numbers(unit)
                streamed.append((unit, place))
        if streamed:
            self._start_stream(streamed, self.plan.num_slots)

    def _start_stream(self, streamed: Sequence[tuple[Unit, _Kept]], num_slots: int) -> None:
        filler = FILLERS[self.source]([unit for unit, _ in streamed], self.device)
        layouts = [unit.layout for unit, _ in streamed]
        self._stream = WeightStream(layouts, num_slots, self.device, filler, self.on_streamed)
        for index, (layout, (_, place)) in enumerate(zip(layouts, streamed, strict=True)):
            place.storage = _Streamed(layout, self._stream, index)

    def take_counts(self) -> StreamCounts:
        """What was streamed since this was last asked."""
        return self._stream.take_counts() if self._stream is not None else StreamCounts()


def _size(unit: Unit, dtype: torch.dtype) -> UnitSize:
    layout = unit.layout
    return UnitSize(unit.name, layout.num_bytes, layout.buffer_bytes, unit.resident_bytes(dtype))


def _require_numbers(unit: Unit) -> None:
    """Every weight is read once here and looked at; what streams later is not. Raises CheckpointError."""
    for part in unit.parts:
        for rectangle in part.rectangles:
            rectangle.read()
