"""What brings a unit's bytes into a slot: from the checkpoint on disk, or from host memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from treespec.model.checkpoint import StoredTensor
from treespec.model.offload.watched_file import WatchedFile
from treespec.model.units import Unit


class Filler(Protocol):
    """Brings the streamed units of a model, one at a time, always from the same thread."""

    def fill(self, index: int, slot: Tensor) -> int:
        """Put unit ``index`` into the slot, a buffer of bytes on the device; returns how many bytes were moved.

        On a GPU the copy is queued on the current stream.
        """


class HostFiller:
    """Units lie in host memory, laid out as in a slot; pinned where the device is a GPU."""

    def __init__(self, units: Sequence[Unit], device: torch.device) -> None:
        self._units = [_in_host_memory(unit, pinned=device.type == "cuda") for unit in units]
        self._num_bytes = [unit.layout.num_bytes for unit in units]

    def fill(self, index: int, slot: Tensor) -> int:
        source = self._units[index]
        slot[: len(source)].copy_(source, non_blocking=True)
        return self._num_bytes[index]


def _in_host_memory(unit: Unit, *, pinned: bool) -> Tensor:
    layout = unit.layout
    buffer = torch.empty(layout.buffer_bytes, dtype=torch.uint8, pin_memory=pinned)
    for view, part in zip(layout.views(buffer), unit.parts, strict=True):
        view.copy_(part.read())
    return buffer


@dataclass(frozen=True)
class _Run:
    """Bytes that lie together, in a file and in a slot."""

    file: WatchedFile
    offset: int
    num_bytes: int
    start: int


class DiskFiller:
    """Units are read from the checkpoint's files each time, and what was read leaves the page cache with the next read.

    Every step is cold then, as for a model that is larger than the host's memory.
    """

    def __init__(self, units: Sequence[Unit], device: torch.device) -> None:
        self._files: dict[Path, WatchedFile] = {}
        self._runs = [self._runs_of(unit) for unit in units]
        largest = max((unit.layout.buffer_bytes for unit in units), default=0)
        # On its way to a GPU what was read needs a place that the GPU can fetch it from.
        self._staging = torch.empty(largest, dtype=torch.uint8, pin_memory=True) if device.type == "cuda" else None
        self._fetched: torch.cuda.Event | None = None
        self._last: _Run | None = None  # that is still in the page cache

    def _runs_of(self, unit: Unit) -> list[_Run]:
        runs = []
        for begin, part in zip(unit.layout.starts, unit.parts, strict=False):
            start = begin
            for rectangle in part.rectangles:
                matrix = rectangle.matrix
                assert isinstance(matrix, StoredTensor), "only what lies in a file can be streamed from one"
                if matrix.path not in self._files:
                    self._files[matrix.path] = WatchedFile(matrix.path)
                for first, num_bytes in rectangle.runs():
                    runs.append(_Run(self._files[matrix.path], matrix.offset + first, num_bytes, start))
                    start += num_bytes
        # A file read forwards is read ahead by the system.
        return sorted(runs, key=lambda run: (run.file.path, run.offset))

    def fill(self, index: int, slot: Tensor) -> int:
        """Raises CheckpointError for a file that has changed, shrunk or gone since it was opened."""
        if self._staging is None:
            return self._read(self._runs[index], slot)
        if self._fetched is not None:
            self._fetched.synchronize()
        num_bytes = self._read(self._runs[index], self._staging)
        slot.copy_(self._staging[: len(slot)], non_blocking=True)
        self._fetched = torch.cuda.Event()
        self._fetched.record()
        return num_bytes

    def _read(self, runs: Sequence[_Run], buffer: Tensor) -> int:
        for file in {run.file for run in runs}:
            file.require_unchanged()
        whole = memoryview(buffer.numpy().data)
        num_bytes = 0
        for run in runs:
            num_bytes += run.file.read(run.offset, whole[run.start : run.start + run.num_bytes])
            # One run late: without the page in front of it the system does not take the next run for a continuation,
            # and does not read ahead (measured: half the speed).
            if self._last is not None:
                self._last.file.forget(self._last.offset, self._last.num_bytes)
            self._last = run
        return num_bytes
