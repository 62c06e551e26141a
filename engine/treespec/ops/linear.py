"""Linear layers: one class; how the weight is stored is a part of it, not a subclass.

On CPUs ``F.linear`` in float32 becomes much dearer as soon as a few rows go in, which would eat the
gain of verifying several tokens at once. Weights reordered for oneDNN stay nearly flat up to 8 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

PACK_MIN_ELEMENTS = 1 << 18
PACK_ROWS_HINT = 16
PACKED_MIN_ROWS = 4  # the kernels for 1 and 2 rows are slower than the one for 4
PACK_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


class WeightStorage(Protocol):
    """A weight ``[out, in]`` in some layout that can be multiplied."""

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ weight.T + bias`` for x ``[..., in]``."""


class WeightFormat(Protocol):
    """How a weight ``[out, in]`` is written down in tensors, its parts, wherever those are."""

    def multiply(self, parts: Sequence[Tensor], x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ weight.T + bias`` for x ``[..., in]``, by parts as they are stored."""

    def storage(self, parts: Sequence[Tensor], dtype: torch.dtype) -> WeightStorage:
        """The fastest storage for parts that stay on the device, to multiply in this dtype."""


@dataclass(frozen=True)
class DenseFormat:
    """One part: the weight in any floating-point dtype."""

    def multiply(self, parts: Sequence[Tensor], x: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, parts[0].to(x.dtype), bias)

    def storage(self, parts: Sequence[Tensor], dtype: torch.dtype) -> WeightStorage:
        return best_storage(parts[0].to(dtype))


class DenseStorage:
    """The weight as the checkpoint has it."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, self.weight, bias)


class PackedStorage:
    """The weight reordered once for oneDNN's inner-product kernels; CPU only, the original is not kept."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACK_ROWS_HINT)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        num_rows = x.numel() // x.shape[-1]
        if num_rows < PACKED_MIN_ROWS:
            padded = F.pad(x.reshape(num_rows, x.shape[-1]), (0, 0, 0, PACKED_MIN_ROWS - num_rows))
            y = self._multiply(padded, bias)
            return y[:num_rows].reshape(*x.shape[:-1], y.shape[-1])
        return self._multiply(x, bias)

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, bias, "none", [], "")  # type: ignore[no-any-return]


class Linear:
    """A linear map with an optional bias."""

    def __init__(self, storage: WeightStorage, bias: Tensor | None = None) -> None:
        self.storage = storage
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return self.storage.multiply(x, self.bias)


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build and processor have the packed kernels; they are private to torch and may go."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype is not torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def best_storage(weight: Tensor) -> WeightStorage:
    """The fastest storage this device and dtype have; packing is checked on real numbers before it is trusted."""
    if weight.device.type != "cpu" or weight.dtype not in PACK_TOLERANCE or weight.numel() < PACK_MIN_ELEMENTS:
        return DenseStorage(weight)
    if not _can_pack(weight.dtype):
        return DenseStorage(weight)
    packed = PackedStorage(weight)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(3, weight.shape[1], generator=generator).to(weight.dtype)
    expected = F.linear(probe.float(), weight.float())
    error = (packed.multiply(probe, None).float() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return packed if error < PACK_TOLERANCE[weight.dtype] else DenseStorage(weight)
