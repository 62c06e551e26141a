"""Quantised models and weights for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from treespec.config import ModelRef, Quantisation
from treespec.model.checkpoint import Checkpoint
from treespec.model.conversion.convert import ConversionSettings
from treespec.model.families.registry import FAMILIES
from treespec.model.loader import LoadedModel, load_model
from treespec.model.quantised import QuantisedSource, quantisation_of
from treespec.model.sources import TensorSource, Weights
from treespec.model.spec import architecture_of, read_config
from treespec.parallel.mesh import ParallelMesh

INT8, INT4 = Quantisation(bits=8), Quantisation(bits=4)
IN_4_BITS = ConversionSettings(quantisation=Quantisation(bits=4, group_size=32))
MIB = 1 << 20


def names_in(folder: Path) -> list[str]:
    """Of its files and folders, sorted."""
    return sorted(path.name for path in folder.iterdir())


@dataclass
class Counted:
    """A tensor that knows how much of it was read at a time."""

    tensor: Tensor
    reads: list[int] = field(default_factory=list)  # elements

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """As it is stored."""
        return self.tensor.dtype

    def numel(self) -> int:
        """Elements of the whole."""
        return self.tensor.numel()

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Tensor:
        out = self.tensor[part]
        self.reads.append(out.numel())
        return out


def stored_weights(folder: Path) -> Weights:
    """All tensors of a folder as they are stored, quantised ones in their parts; nothing else may be in it."""
    config, checkpoint = read_config(folder), Checkpoint(folder)
    family, quantisation = FAMILIES.get(architecture_of(config, folder)), quantisation_of(config, folder)
    source: TensorSource = checkpoint if quantisation is None else QuantisedSource(checkpoint, quantisation)
    weights = family.read_weights(family.spec(config, folder), source)
    checkpoint.finish()
    return weights


def load_quantised(folder: Path, quantisation: Quantisation | None, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A folder on the CPU, rounded while it is read."""
    return load_model(ModelRef(path=folder, quantisation=quantisation), dtype, torch.device("cpu"), ParallelMesh())
