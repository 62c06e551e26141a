"""Passes and commits as rows of numbers, for the way from the driver to the other ranks.

Legend: B requests, N new tokens, K key slots, R rows whose result is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from treespec.kvcache.allocator import SlotMoves
from treespec.model.decoder import ForwardBatch, Wanted
from treespec.runner.batch import region_index

EVERY = -1  # an owner: the model is spread over all ranks, each of which computes its part
NONE = -1
FORWARD_HEAD = 7  # numbers that describe a batch before its tensors
MOVE_HEAD = 2
WORD_BITS = 64


@dataclass(frozen=True, eq=False)
class ForwardPart:
    """A micro-batch and the rank that computes it."""

    owner: int
    batch: ForwardBatch


@dataclass(frozen=True, eq=False)
class MovePart:
    """Copies in the cache of one owner."""

    owner: int
    moves: SlotMoves


def forward_numbers(parts: Sequence[ForwardPart]) -> list[Tensor]:
    """All heads first, then the tensors of each part."""
    heads, tensors = [], []
    for part in parts:
        batch, (B, N) = part.batch, part.batch.ids_BN.shape
        num_rows = NONE if batch.logit_rows is None else len(batch.logit_rows)
        has_bias = batch.bias_BNK is not None
        heads.append([part.owner, B, N, batch.num_keys, num_rows, int(has_bias), batch.wanted])
        tensors += [batch.ids_BN, batch.positions_BN, batch.slots_T, _region_list(batch.regions)]
        tensors += [] if batch.logit_rows is None else [batch.logit_rows]
        tensors += [] if batch.bias_BNK is None else [_words(batch.bias_BNK == 0)]
    return [torch.tensor(heads, dtype=torch.int64), *tensors]


def forward_parts(numbers: Tensor, count: int, dtype: torch.dtype, device: torch.device) -> Iterator[ForwardPart]:
    """What ``forward_numbers`` made, with biases of the decoder's dtype."""
    heads, rest = numbers.split([FORWARD_HEAD * count, len(numbers) - FORWARD_HEAD * count])
    for owner, B, N, K, num_rows, has_bias, wanted in heads.view(count, FORWARD_HEAD).tolist():
        sizes = [B * N, B * N, B * N, B, max(num_rows, 0), num_words(B * N * K) if has_bias else 0]
        ids, positions, slots, regions, rows, words, rest = rest.split([*sizes, len(rest) - sum(sizes)])
        bias = None
        if has_bias:
            is_visible = _bits(words, B * N * K).view(B, N, K)
            bias = torch.zeros(B, N, K, dtype=dtype, device=device).masked_fill_(~is_visible, -torch.inf)
        batch = ForwardBatch(
            ids_BN=ids.view(B, N),
            positions_BN=positions.view(B, N),
            slots_T=slots,
            regions=region_index(regions.tolist(), device),
            num_keys=K,
            bias_BNK=bias,
            logit_rows=None if num_rows == NONE else rows,
            wanted=Wanted(wanted),
        )
        yield ForwardPart(owner, batch)


def move_numbers(parts: Sequence[MovePart]) -> list[Tensor]:
    """All heads first, then sources and targets of each part."""
    heads = torch.tensor([[part.owner, len(part.moves.sources)] for part in parts], dtype=torch.int64)
    slots = [torch.from_numpy(slots) for part in parts for slots in (part.moves.sources, part.moves.targets)]
    return [heads, *slots]


def move_parts(numbers: Tensor, count: int) -> Iterator[MovePart]:
    """What ``move_numbers`` made."""
    values = numbers.cpu().numpy()
    heads, rest = values[: MOVE_HEAD * count].reshape(count, MOVE_HEAD), values[MOVE_HEAD * count :]
    for owner, size in heads.tolist():
        sources, targets, rest = np.split(rest, [size, 2 * size])
        yield MovePart(owner, SlotMoves(sources, targets))


def num_words(num_bits: int) -> int:
    """Numbers that hold so many bits of a mask."""
    return -(-num_bits // WORD_BITS)


def _words(mask: Tensor) -> Tensor:
    """A mask, a bit per entry, int64."""
    bits = F.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % WORD_BITS)).view(-1, 8)
    return (bits << _places(mask.device)).sum(dim=-1, dtype=torch.uint8).view(torch.int64)


def _bits(words: Tensor, num_bits: int) -> Tensor:
    """The first bits of what ``_words`` made, bool."""
    octets = words.contiguous().view(torch.uint8).unsqueeze(-1)
    return ((octets >> _places(words.device)) & 1).reshape(-1)[:num_bits].bool()


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def _region_list(regions: slice | Tensor) -> Tensor:
    return torch.arange(regions.start, regions.stop) if isinstance(regions, slice) else regions
