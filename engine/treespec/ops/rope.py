"""Rotary position embedding (Su et al. 2021), in the half-rotated layout of Hugging Face checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RopeTable:
    """Cosines and sines per position, made in float32 and kept in the compute dtype; ``[P, D]`` each."""

    cos_PD: Tensor
    sin_PD: Tensor  # its first half negated, so that rotating is one swap of halves

    @classmethod
    def build(
        cls, num_positions: int, head_dim: int, base: float, dtype: torch.dtype, device: torch.device
    ) -> RopeTable:
        """Tables for positions 0 to ``num_positions - 1``."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        positions = torch.arange(num_positions, dtype=torch.float32, device=device)
        angles = torch.outer(positions, 1.0 / base**exponents)
        sin = angles.sin()
        return cls(torch.cat([angles.cos()] * 2, -1).to(dtype), torch.cat([-sin, sin], -1).to(dtype))

    def at(self, positions_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Rows for a batch, shaped ``[B, N, 1, D]`` so that every head of a layer shares them."""
        return self.cos_PD[positions_BN].unsqueeze(2), self.sin_PD[positions_BN].unsqueeze(2)


def rotate(x_BNHD: Tensor, cos_BN1D: Tensor, sin_BN1D: Tensor) -> Tensor:
    """Rotate every head by its position's angles."""
    half = x_BNHD.shape[-1] // 2
    swapped = torch.cat((x_BNHD[..., half:], x_BNHD[..., :half]), dim=-1)
    return torch.addcmul(x_BNHD * cos_BN1D, swapped, sin_BN1D)
