"""Kernels of torch that multiply by 4-bit codes as they are; used where they fit, are right and are faster.

In bfloat16 only: in float32 and float16 the CPU's kernel is several times slower than expanding, and the GPU's does not
exist. With hundreds of rows at once expanding would be faster in bfloat16 too, but it rounds otherwise, and a weight is
to be the same one in every pass. Torch's 8-bit kernel has one scale per row and no minima, so it does not fit groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from treespec.config import Quantisation
from treespec.ops.quantised import QuantisedParts, expand, unpacked_codes

GROUP_SIZES = (32, 64, 128, 256)
ZERO_CODE = 8  # the kernels multiply code - 8
TOLERANCE = 5e-2  # of bfloat16 sums, as for packed weights
PROBE_ROWS = 3
K_TILES = 8  # of 16 inputs each, that the GPU's layout keeps together


@dataclass(frozen=True)
class _Kernel:
    """A layout and the product over it."""

    rows_multiple: int
    inputs_multiple: int
    pack: Callable[[Tensor], Tensor]  # uint8 codes [O, I]
    multiply: Callable[[Tensor, Tensor, int, Tensor], Tensor]  # x [N, I], packed, group size, steps [G, O, 2]


def _pack_cpu(codes_OI: Tensor) -> Tensor:
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI.int(), K_TILES)  # type: ignore[no-any-return]


def _multiply_cpu(x_NI: Tensor, packed: Tensor, group_size: int, steps: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x_NI, packed, group_size, steps)  # type: ignore[no-any-return]


def _pack_cuda(codes_OI: Tensor) -> Tensor:
    pairs = (codes_OI[:, ::2] << 4 | codes_OI[:, 1::2]).contiguous()
    return torch.ops.aten._convert_weight_to_int4pack(pairs, K_TILES)  # type: ignore[no-any-return]


def _multiply_cuda(x_NI: Tensor, packed: Tensor, group_size: int, steps: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm(x_NI, packed, group_size, steps)  # type: ignore[no-any-return]


def _kernel(device: torch.device) -> _Kernel | None:
    """What this build and this device have; the operators are private to torch and may go."""
    if device.type == "cpu" and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        # Measured with AVX-512 only (benchmarks/quantised_linear.py).
        is_fast = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        return _Kernel(16, 2, _pack_cpu, _multiply_cpu) if is_fast else None
    if device.type == "cuda" and hasattr(torch.ops.aten, "_weight_int4pack_mm"):
        has_bfloat16 = torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
        return _Kernel(8, 16 * K_TILES, _pack_cuda, _multiply_cuda) if has_bfloat16 else None
    return None


class Int4Storage:
    """Codes in a kernel's order; scales and minima are rounded to bfloat16. The parts are not kept."""

    def __init__(self, parts: QuantisedParts, quantisation: Quantisation, kernel: _Kernel) -> None:
        self._kernel = kernel
        self._group_size = quantisation.group_size
        self._packed = kernel.pack(unpacked_codes(parts, quantisation))
        scales_OG = parts.scales.float()
        steps_OG2 = torch.stack((scales_OG, parts.minima.float() + ZERO_CODE * scales_OG), dim=-1)
        self._steps_GO2 = steps_OG2.transpose(0, 1).to(torch.bfloat16).contiguous()

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y_NO = self._kernel.multiply(
            x.reshape(-1, x.shape[-1]).contiguous(), self._packed, self._group_size, self._steps_GO2
        )
        y = y_NO.view(*x.shape[:-1], y_NO.shape[-1])
        return y if bias is None else y + bias


def int4_storage(parts: QuantisedParts, quantisation: Quantisation, dtype: torch.dtype) -> Int4Storage | None:
    """A kernel of torch, if there is one that fits and gives the right numbers here."""
    if quantisation.bits != 4 or dtype is not torch.bfloat16 or quantisation.group_size not in GROUP_SIZES:
        return None
    kernel = _kernel(parts.codes.device)
    num_rows, num_inputs = parts.codes.shape[0], parts.codes.shape[1] * 2
    if kernel is None or num_rows % kernel.rows_multiple or num_inputs % kernel.inputs_multiple:
        return None
    storage = Int4Storage(parts, quantisation, kernel)
    return storage if _is_right(storage, parts, quantisation, num_inputs) else None


def _is_right(storage: Int4Storage, parts: QuantisedParts, quantisation: Quantisation, num_inputs: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(PROBE_ROWS, num_inputs, generator=generator).to(torch.bfloat16).to(parts.codes.device)
    expected = F.linear(probe.float(), expand(parts, quantisation, torch.float32))
    error = (storage.multiply(probe, None).float() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return bool(error < TOLERANCE)
