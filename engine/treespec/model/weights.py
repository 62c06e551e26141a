"""Tensors of a checkpoint on their way into a decoder: cast, moved, fused, packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.model.decoder import Weights
from treespec.ops.linear import Linear, best_storage


@dataclass(frozen=True)
class WeightSource:
    """Takes tensors by their checkpoint names in the dtype and on the device that a decoder computes with."""

    weights: Weights
    dtype: torch.dtype
    device: torch.device

    def tensor(self, name: str) -> Tensor:
        """One tensor."""
        return self.weights[name].to(device=self.device, dtype=self.dtype)

    def linear(self, *names: str) -> Linear:
        """Several maps of one input as one fused, packed map; biases where the checkpoint has them."""
        weight = torch.cat([self.tensor(f"{name}.weight") for name in names])
        has_bias = f"{names[0]}.bias" in self.weights
        bias = torch.cat([self.tensor(f"{name}.bias") for name in names]) if has_bias else None
        return Linear(best_storage(weight), bias)
