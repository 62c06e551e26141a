"""Tensors of a checkpoint on their way into a decoder: this rank's part, cast, moved, fused, packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.model.decoder import Weights
from treespec.model.spec import ModelSpec
from treespec.ops.linear import Linear, best_storage
from treespec.parallel.mesh import ParallelMesh

ALL = slice(None)


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


@dataclass(frozen=True)
class WeightSource:
    """Takes tensors by their checkpoint names in the dtype and on the device that a decoder computes with."""

    weights: Weights
    dtype: torch.dtype
    device: torch.device
    mesh: ParallelMesh

    def tensor(self, name: str, rows: slice = ALL) -> Tensor:
        """One tensor, or rows of it."""
        return self._cast(self.weights[name][rows])

    def columns(self, *names: str, rows: Sequence[slice] | None = None) -> Linear:
        """Several maps of one input as one fused, packed map, this rank's rows of each; biases where there are any."""
        parts = rows or [ALL] * len(names)
        weight = torch.cat([self.tensor(f"{name}.weight", part) for name, part in zip(names, parts, strict=True)])
        bias = None
        if f"{names[0]}.bias" in self.weights:
            bias = torch.cat([self.tensor(f"{name}.bias", part) for name, part in zip(names, parts, strict=True)])
        return Linear(best_storage(weight), bias)

    def rows(self, name: str, columns: slice) -> Linear:
        """A map of an input that is spread over the ranks: the results are summed, so one rank adds the bias."""
        weight = self._cast(self.weights[f"{name}.weight"][:, columns])
        adds_bias = f"{name}.bias" in self.weights and self.mesh.tensor_rank == 0
        return Linear(best_storage(weight), self.tensor(f"{name}.bias") if adds_bias else None)

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.device, dtype=self.dtype).contiguous()
