"""Storages of quantised weights: expanded at every use, or multiplied as they are by a kernel of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.config import Quantisation
from treespec.ops.int4_kernels import int4_storage
from treespec.ops.linear import WeightStorage
from treespec.ops.quantised import QuantisedParts, multiply


@dataclass(frozen=True, eq=False)
class QuantisedStorage:
    """A weight that stays in its codes and is expanded at every use."""

    parts: QuantisedParts
    quantisation: Quantisation

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return multiply(self.parts, self.quantisation, x, bias)


@dataclass(frozen=True)
class QuantisedFormat:
    """Codes, scales and minima, in this order."""

    quantisation: Quantisation

    def multiply(self, parts: Sequence[Tensor], x: Tensor, bias: Tensor | None) -> Tensor:
        return multiply(QuantisedParts(*parts), self.quantisation, x, bias)

    def storage(self, parts: Sequence[Tensor], dtype: torch.dtype) -> WeightStorage:
        quantised = QuantisedParts(*parts)
        return int4_storage(quantised, self.quantisation, dtype) or QuantisedStorage(quantised, self.quantisation)
