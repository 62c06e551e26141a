"""What the tensors of a model are taken from, whatever holds them: files, memory, or a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Sliceable(Protocol):
    """A tensor, or one on disk of which a part can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""

    @property
    def dtype(self) -> torch.dtype:
        """As it is stored."""

    def numel(self) -> int:
        """Elements of the whole."""

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Tensor:
        """A part."""


Weights = Mapping[str, Sliceable]
"""Tensors of a checkpoint by their names there."""


class TensorSource(Protocol):
    """Where the tensors of a model come from; a family's reader takes those that it knows."""

    def take(self, name: str, shape: tuple[int, ...]) -> Sliceable:
        """One tensor, not read yet. Raises CheckpointError if it is missing or of another shape."""

    def ignore(self, name: str) -> None:
        """Count a tensor as known without reading it."""

    def __contains__(self, name: str) -> bool:
        """Whether it has a tensor of this name."""
