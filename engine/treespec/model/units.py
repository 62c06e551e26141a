"""A linear map on its way from a checkpoint: which bytes it is made of, read at once or again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.model.sources import Sliceable
from treespec.ops.linear import WeightFormat

ALL = slice(None)
ALIGNMENT = 64  # bytes; parts of a unit begin where vector instructions like it


@dataclass(frozen=True)
class Rectangle:
    """Rows and columns of a matrix of a checkpoint."""

    matrix: Sliceable
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns it has."""
        num_rows, num_columns = self.matrix.shape
        return len(range(num_rows)[self.rows]), len(range(num_columns)[self.columns])

    def read(self) -> Tensor:
        """Its numbers, in the stored dtype."""
        return self.matrix[self.rows, self.columns]

    def runs(self) -> Iterator[tuple[int, int]]:
        """The bytes of the whole matrix, row after row, that it covers: (first, number) of each stretch."""
        (num_rows, width), item = self.matrix.shape, self.matrix.dtype.itemsize
        rows, columns = range(num_rows)[self.rows], range(width)[self.columns]
        if len(columns) == width:
            yield rows.start * width * item, len(rows) * width * item
            return
        for row in rows:
            yield (row * width + columns.start) * item, len(columns) * item


@dataclass(frozen=True)
class Part:
    """One tensor of a unit: rectangles of one width, one below the other (query, key and value, say)."""

    rectangles: tuple[Rectangle, ...]

    @property
    def dtype(self) -> torch.dtype:
        """As it is stored."""
        return self.rectangles[0].matrix.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Of all rectangles together."""
        return sum(rectangle.shape[0] for rectangle in self.rectangles), self.rectangles[0].shape[1]

    def read(self) -> Tensor:
        """Its numbers, in the stored dtype; no more than one rectangle is there twice."""
        if len(self.rectangles) == 1:
            return self.rectangles[0].read().contiguous()
        whole, start = torch.empty(self.shape, dtype=self.dtype), 0
        for rectangle in self.rectangles:
            stop = start + rectangle.shape[0]
            whole[start:stop] = rectangle.read()
            start = stop
        return whole


@dataclass(frozen=True)
class Layout:
    """How a unit lies in a buffer of bytes: its parts one after the other, all aligned."""

    name: str
    format: WeightFormat
    parts: tuple[tuple[torch.dtype, tuple[int, int]], ...]

    @property
    def num_bytes(self) -> int:
        """What reading it moves, without padding."""
        return sum(math.prod(shape) * dtype.itemsize for dtype, shape in self.parts)

    @property
    def starts(self) -> list[int]:
        """Where its parts begin; one more entry ends them."""
        starts = [0]
        for dtype, shape in self.parts:
            starts.append(starts[-1] + -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT)
        return starts

    @property
    def buffer_bytes(self) -> int:
        """With padding."""
        return self.starts[-1]

    def views(self, buffer: Tensor) -> list[Tensor]:
        """Its parts in a buffer."""
        return [
            buffer[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
            for start, (dtype, shape) in zip(self.starts, self.parts, strict=False)
        ]


@dataclass(frozen=True)
class Unit:
    """A linear map as it is stored: a format, the format's parts, and where to read them."""

    name: str
    format: WeightFormat
    parts: tuple[Part, ...]
    num_elements: int  # of the map, however it is stored

    @property
    def layout(self) -> Layout:
        """What of it is known without reading."""
        return Layout(self.name, self.format, tuple((part.dtype, part.shape) for part in self.parts))

    def resident_bytes(self, dtype: torch.dtype) -> int:
        """What it takes on a device that computes in ``dtype``: dense weights are cast, others stay as they are."""
        return self.dense_bytes(dtype) if len(self.parts) == 1 else self.layout.num_bytes

    def dense_bytes(self, dtype: torch.dtype) -> int:
        """What it takes as a plain matrix."""
        return self.num_elements * dtype.itemsize
