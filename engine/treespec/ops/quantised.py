"""Weights rounded to 8 or 4 bits, group by group: FlexGen's scheme (Sheng et al. 2023, section 5).

Each row is cut into groups of g consecutive inputs; a group keeps its minimum and a scale, every weight of it a code:
``weight ~ minimum + scale * code``. Groups never cross rows, so rows are independent of each other, and columns are
wherever they are cut between groups.

Legend: O outputs, I inputs, G groups per row, g inputs per group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from treespec.config import Quantisation
from treespec.errors import ConfigError

PART_NAMES = ("codes", "scales", "minima")
STEP_DTYPE = torch.float16
"""Of scales and minima: half the bytes of float32; perplexities in docs/benchmarks.md are with it."""
SCRATCH_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 24}
"""Weights expanded at a time. On CPUs larger buffers leave the cache and are faulted in anew at every use."""


@dataclass(frozen=True)
class QuantisedParts:
    """A weight ``[O, I]`` in codes: uint8 ``[O, I]``, or two to a byte ``[O, I/2]``; scales and minima ``[O, G]``.

    A byte of two 4-bit codes holds input k of its group in the low half and input k + g/2 in the high one.
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """In the order of ``PART_NAMES``."""
        return iter((self.codes, self.scales, self.minima))

    def rows(self, start: int, stop: int) -> QuantisedParts:
        """Views of some rows."""
        return QuantisedParts(*(part[start:stop] for part in self))


def part_shapes(shape: tuple[int, ...], quantisation: Quantisation) -> dict[str, tuple[torch.dtype, tuple[int, int]]]:
    """Dtype and shape of every part of a weight of this shape."""
    num_rows, num_inputs = shape
    groups = (num_rows, num_inputs // quantisation.group_size)
    codes = (num_rows, num_inputs * quantisation.bits // 8)
    return {"codes": (torch.uint8, codes), "scales": (STEP_DTYPE, groups), "minima": (STEP_DTYPE, groups)}


def require_groups(num_inputs: int, quantisation: Quantisation, name: str, common: int = 0) -> None:
    """Refuse rows that are not made of whole groups. Raises ConfigError.

    ``common``: a divisor of the inputs of all weights that are rounded together; what is allowed then does for all.
    """
    size, step = quantisation.group_size, 2 if quantisation.bits == 4 else 1  # a byte's two codes are of one group
    if num_inputs % size == 0 and size % step == 0:
        return
    shared = gcd(num_inputs, common)
    divisors = [divisor for divisor in range(2, shared + 1) if shared % divisor == 0 and divisor % step == 0]
    raise ConfigError(
        f"group_size does not divide a weight's inputs into {quantisation.label} groups",
        where=f"tensor {name!r}",
        received=f"{num_inputs} inputs, group_size {size}",
        allowed=f"group_size {', '.join(map(str, divisors)) or 'none: it cannot be quantised'}",
    )


def quantise(weight_OI: Tensor, quantisation: Quantisation, name: str = "weight") -> QuantisedParts:
    """Round a weight; ``name`` is for errors.

    A weight is off by at most half a step, (maximum - minimum) / (2^bits - 1) / 2, and what float16 rounds off the
    group's minimum and scale. Raises ConfigError for groups that do not fit, and for values beyond float16.
    """
    num_rows, num_inputs = weight_OI.shape
    require_groups(num_inputs, quantisation, name)
    weight_OGg = weight_OI.float().view(num_rows, -1, quantisation.group_size)
    levels = 2**quantisation.bits - 1
    # Codes are chosen for the minimum and the scale as they are stored, rounded themselves.
    minima_OG = weight_OGg.amin(-1).to(STEP_DTYPE)
    scales_OG = ((weight_OGg.amax(-1) - minima_OG.float()) / levels).clamp(min=0).to(STEP_DTYPE)
    if not bool(minima_OG.isfinite().all() and scales_OG.isfinite().all()):
        raise ConfigError(
            f"weight is too large for {quantisation.label}, whose groups keep float16 minima",
            where=f"tensor {name!r}",
            received=f"largest magnitude {float(weight_OI.abs().max()):g}",
            allowed=f"at most {torch.finfo(STEP_DTYPE).max:g}",
        )
    steps_OG1 = scales_OG.float().unsqueeze(-1)
    steps_OG1 = torch.where(steps_OG1 > 0, steps_OG1, 1.0)  # a constant group: all codes are 0, whatever they divide
    codes_OGg = ((weight_OGg - minima_OG.float().unsqueeze(-1)) / steps_OG1).round().clamp(0, levels).to(torch.uint8)
    if quantisation.bits == 4:
        low, high = codes_OGg.chunk(2, dim=-1)
        codes_OGg = low | (high << 4)
    return QuantisedParts(codes_OGg.reshape(num_rows, -1), scales_OG, minima_OG)


def expand(parts: QuantisedParts, quantisation: Quantisation, dtype: torch.dtype) -> Tensor:
    """The weight ``[O, I]``, computed in float32 and rounded once."""
    num_rows, num_inputs = _shape(parts, quantisation)
    weight_OI = torch.empty(num_rows, num_inputs, dtype=dtype, device=parts.codes.device)
    for start, stop, block in _blocks(parts, quantisation):
        weight_OI[start:stop] = block
    return weight_OI


def multiply(parts: QuantisedParts, quantisation: Quantisation, x: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias`` for x ``[..., I]``: a block of rows is expanded, used, and its memory used again."""
    num_rows = parts.codes.shape[0]
    y = x.new_empty(*x.shape[:-1], num_rows)
    for start, stop, block in _blocks(parts, quantisation):
        y[..., start:stop] = F.linear(x, block.to(x.dtype), None if bias is None else bias[start:stop])
    return y


def unpacked_codes(parts: QuantisedParts, quantisation: Quantisation) -> Tensor:
    """One code per byte, uint8 ``[O, I]``, in the order of the inputs."""
    if quantisation.bits == 8:
        return parts.codes
    halves_OGh = parts.codes.unflatten(1, (-1, quantisation.group_size // 2))
    return torch.cat((halves_OGh & 15, halves_OGh >> 4), dim=-1).flatten(1)


def _shape(parts: QuantisedParts, quantisation: Quantisation) -> tuple[int, int]:
    return parts.codes.shape[0], parts.scales.shape[1] * quantisation.group_size


def _blocks(parts: QuantisedParts, quantisation: Quantisation) -> Iterator[tuple[int, int, Tensor]]:
    """(first row, end, float32 weight of these rows) one after the other; the same memory every time."""
    num_rows, num_inputs = _shape(parts, quantisation)
    step = min(num_rows, max(1, SCRATCH_ELEMENTS[parts.codes.device.type] // num_inputs))
    scratch_RI = torch.empty(step, num_inputs, device=parts.codes.device)
    for start in range(0, num_rows, step):
        stop = min(start + step, num_rows)
        block_RI = scratch_RI[: stop - start]
        _fill(block_RI, parts.rows(start, stop), quantisation)
        yield start, stop, block_RI


def _fill(weight_RI: Tensor, parts: QuantisedParts, quantisation: Quantisation) -> None:
    """Expand into contiguous float32; copy, multiply and add in place take less than half the time of ``addcmul``."""
    weight_RGg = weight_RI.unflatten(1, (-1, quantisation.group_size))
    if quantisation.bits == 4:
        half = quantisation.group_size // 2
        codes_RGh = parts.codes.unflatten(1, (-1, half))
        weight_RGg[..., :half].copy_(codes_RGh & 15)
        weight_RGg[..., half:].copy_(codes_RGh >> 4)
    else:
        weight_RGg.copy_(parts.codes.view_as(weight_RGg))
    weight_RGg.mul_(parts.scales.float().unsqueeze(-1)).add_(parts.minima.float().unsqueeze(-1))
