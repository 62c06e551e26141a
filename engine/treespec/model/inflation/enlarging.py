"""What the inflations of all families share: the enlarged specification and the noise of what nothing reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from treespec.config import Inflation
from treespec.errors import ConfigError
from treespec.model.spec import ModelSpec

NOISE_SCALE = 0.02


def refuse_variants(has: Mapping[str, bool]) -> None:
    """Refuse variants whose function enlarging would change. Raises ConfigError that names those a model has."""
    if any(has.values()):
        raise ConfigError(
            "inflation would change what a model of this variant computes",
            received=", ".join(name for name, is_so in has.items() if is_so),
            allowed="a model without " + ", ".join(has),
        )


def enlarged(spec: ModelSpec, inflation: Inflation) -> ModelSpec:
    """The specification with width and depth multiplied. Raises ConfigError for fewer layers."""
    factor, num_layers = inflation.width_factor, inflation.num_layers or spec.num_layers
    if num_layers < spec.num_layers:
        raise ConfigError(
            "inflation cannot remove layers", received=f"num_layers {num_layers}", allowed=f">= {spec.num_layers}"
        )
    return replace(
        spec,
        hidden_size=spec.hidden_size * factor,
        ffn_size=spec.ffn_size * factor,
        num_heads=spec.num_heads * factor,
        num_kv_heads=spec.num_kv_heads * factor,
        num_layers=num_layers,
    )


class Noise:
    """One seeded stream: the same enlargement has the same weights everywhere."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """Uniform values, float32."""
        return torch.empty(rows, columns).uniform_(-NOISE_SCALE, NOISE_SCALE, generator=self._generator)
