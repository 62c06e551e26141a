"""Rotary position embedding (Su et al. 2021), in the half-rotated layout of Hugging Face checkpoints.

Legend: P positions, D head size, B requests, N new tokens, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class RopeScaling(Protocol):
    """How rotation is slowed down for sequences longer than those of the first training."""

    def scaled(self, frequencies: Tensor) -> Tensor:
        """Radians per position, ``[D / 2]``, from those without scaling."""


@dataclass(frozen=True)
class LinearScaling:
    """All frequencies divided by one factor (Chen et al. 2023, position interpolation)."""

    factor: float

    def scaled(self, frequencies: Tensor) -> Tensor:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Slow rotations divided by a factor, fast ones kept, those between mixed (Llama 3.1, Grattafiori et al. 2024).

    What counts is the number of turns within the positions of the first training: below ``slow_turns`` is slow, above
    ``fast_turns`` fast.
    """

    factor: float
    slow_turns: float
    fast_turns: float
    original_positions: int

    def scaled(self, frequencies: Tensor) -> Tensor:
        turns = self.original_positions * frequencies / (2 * math.pi)
        kept = ((turns - self.slow_turns) / (self.fast_turns - self.slow_turns)).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


@dataclass(frozen=True)
class RopeTable:
    """Cosines and sines per position, made in float32 and kept in the compute dtype; ``[P, D]`` each."""

    cos_PD: Tensor
    sin_PD: Tensor  # its first half negated, so that rotating is one swap of halves

    @classmethod
    def build(
        cls,
        num_positions: int,
        head_dim: int,
        base: float,
        dtype: torch.dtype,
        device: torch.device,
        scaling: RopeScaling | None = None,
    ) -> RopeTable:
        """Tables for positions 0 to ``num_positions - 1``."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        frequencies = 1.0 / base**exponents
        if scaling is not None:
            frequencies = scaling.scaled(frequencies)
        positions = torch.arange(num_positions, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies)
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
