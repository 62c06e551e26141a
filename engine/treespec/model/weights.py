"""Tensors of a checkpoint on their way into a decoder: this rank's part, cast, moved, fused, and kept somewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treespec.model.offload.keeper import Keeper, Resident
from treespec.model.quantised import QuantisedWeight
from treespec.model.sources import Weights
from treespec.model.spec import ModelSpec
from treespec.model.units import ALL, Part, Rectangle, Unit
from treespec.ops.linear import DenseFormat, DenseStorage, Linear, WeightFormat, best_storage
from treespec.ops.quantised_storage import QuantisedFormat
from treespec.parallel.mesh import ParallelMesh


@dataclass(frozen=True)
class Shares:
    """What of each dimension a rank holds, as rows or columns of the checkpoint's matrices."""

    query: slice
    key_value: slice
    ffn: slice
    vocabulary: slice

    @classmethod
    def of(cls, spec: ModelSpec, mesh: ParallelMesh) -> Shares:
        """The whole of everything on one rank."""
        heads, kv_heads, d = mesh.heads(spec.num_heads), mesh.kv_heads(spec.num_kv_heads), spec.head_dim
        ffn, vocabulary = mesh.share(spec.ffn_size), mesh.share(spec.vocab_size)
        return cls(
            query=slice(heads.start * d, heads.stop * d),
            key_value=slice(kv_heads.start * d, kv_heads.stop * d),
            ffn=slice(ffn.start, ffn.stop),
            vocabulary=slice(vocabulary.start, vocabulary.stop),
        )


@dataclass
class WeightSource:
    """Takes tensors by their checkpoint names in the dtype and on the device that a decoder computes with.

    Maps are to be taken in the order of their use: that is the order they come by in if they do not stay.
    """

    weights: Weights
    dtype: torch.dtype
    device: torch.device
    mesh: ParallelMesh
    keeper: Keeper
    _tables: dict[str, Tensor] = field(default_factory=dict, init=False)
    fixed_bytes: int = field(default=0, init=False)  # on the device, whatever the keeper does with the maps

    def tensor(self, name: str, rows: slice = ALL) -> Tensor:
        """One tensor, or rows of it."""
        tensor = self._cast(self.weights[name][rows])
        self.fixed_bytes += tensor.numel() * tensor.element_size()
        return tensor

    def columns(self, *names: str, rows: Sequence[slice] | None = None) -> Linear:
        """Several maps of one input as one fused map, this rank's rows of each; biases where there are any."""
        parts = rows or [ALL] * len(names)
        unit = self._unit([(name, part, ALL) for name, part in zip(names, parts, strict=True)])
        bias = None
        if f"{names[0]}.bias" in self.weights:
            bias = torch.cat([self.tensor(f"{name}.bias", part) for name, part in zip(names, parts, strict=True)])
        return Linear(self.keeper.keep(unit), bias)

    def rows(self, name: str, columns: slice) -> Linear:
        """A map of an input that is spread over the ranks: the results are summed, so one rank adds the bias."""
        unit = self._unit([(name, ALL, columns)])
        adds_bias = f"{name}.bias" in self.weights and self.mesh.tensor_rank == 0
        return Linear(self.keeper.keep(unit), self.tensor(f"{name}.bias") if adds_bias else None)

    def table(self, name: str, rows: slice) -> Tensor:
        """This rank's rows of an embedding, by its name without ``.weight``."""
        self._tables[name] = self.tensor(f"{name}.weight", rows)
        return self._tables[name]

    def head(self, name: str, rows: slice, tied_to: str | None) -> Linear:
        """The map to this rank's share of the vocabulary; its own, or the table it is tied to."""
        if tied_to is None:
            return self.columns(name, rows=(rows,))
        table_VM = self._tables.get(tied_to)
        if table_VM is None:  # on a later stage than the first
            table_VM = self.table(tied_to, rows)
        # A copy in another order is faster on CPUs; under a budget there is no room for one.
        return Linear(best_storage(table_VM) if isinstance(self.keeper, Resident) else DenseStorage(table_VM))

    def _unit(self, maps: Sequence[tuple[str, slice, slice]]) -> Unit:
        dense = [Rectangle(self.weights[f"{name}.weight"], rows, columns) for name, rows, columns in maps]
        parts = tuple(Part(tuple(part)) for part in zip(*map(_stored, dense), strict=True))
        num_elements = sum(math.prod(rectangle.shape) for rectangle in dense)
        return Unit("+".join(name for name, _, _ in maps), _format_of(dense[0]), parts, num_elements)

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.device, dtype=self.dtype).contiguous()


def _stored(dense: Rectangle) -> tuple[Rectangle, ...]:
    """What of a checkpoint's tensors these rows and columns of a weight are made of."""
    weight = dense.matrix
    return weight.rectangles(dense.rows, dense.columns) if isinstance(weight, QuantisedWeight) else (dense,)


def _format_of(dense: Rectangle) -> WeightFormat:
    weight = dense.matrix
    return QuantisedFormat(weight.quantisation) if isinstance(weight, QuantisedWeight) else DenseFormat()
