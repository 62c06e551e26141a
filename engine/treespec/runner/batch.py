"""Packs the rows of several requests into one padded batch.

Legend: B requests, n tokens of one row, N tokens per request after padding, M speculative slots, K key slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treespec.kvcache.allocator import Lease, SlotAllocator, SlotMoves
from treespec.model.decoder import ForwardBatch, Wanted


@dataclass(frozen=True)
class Stripes:
    """Which of several owners a region belongs to, and where its slots are in that owner's cache.

    Regions are dealt out in turn, so that neighbours in an owner's cache are regions of one batch.
    """

    num_owners: int
    region_capacity: int

    def stripe(self, region: int) -> int:
        """The owner, counted from 0."""
        return region % self.num_owners

    def local(self, region: int) -> int:
        """The region's number there."""
        return region // self.num_owners

    def num_local(self, num_regions: int) -> int:
        """Regions of the owner that has most."""
        return -(-num_regions // self.num_owners)

    def local_slots(self, region: int, slots: np.ndarray) -> np.ndarray:
        """Slots of a region as numbered there."""
        return slots + (self.local(region) - region) * self.region_capacity

    def localised(self, region: int, moves: SlotMoves) -> SlotMoves:
        """Copies inside a region as that owner carries them out."""
        return SlotMoves(self.local_slots(region, moves.sources), self.local_slots(region, moves.targets))


@dataclass(frozen=True, eq=False)
class ForwardRow:
    """The part of one request in a forward pass.

    ``visible[i, j]`` says whether token i sees speculative slot j, counted from the end of the context; the row's
    own tokens are the last n of the M slots. All context slots are visible.
    """

    lease: Lease
    token_ids: np.ndarray  # int64 [n]
    positions: np.ndarray  # int64 [n]
    visible: np.ndarray  # bool [n, M]
    num_logits: int  # a result is wanted for the last so many tokens


def pack_rows(
    rows: Sequence[ForwardRow],
    allocator: SlotAllocator,
    stripes: Stripes,
    dtype: torch.dtype,
    device: torch.device,
    wanted: Wanted = Wanted.LOGITS,
) -> ForwardBatch:
    """One batch of one owner, request-major.

    A row's padding repeats its last token: same slot, same keys, nothing changes.
    """
    B, N = len(rows), max(len(row.token_ids) for row in rows)
    ids, positions, slots = (np.empty((B, N), dtype=np.int64) for _ in range(3))
    for b, row in enumerate(rows):
        n = len(row.token_ids)
        own_slots = stripes.local_slots(row.lease.region, allocator.slots(row.lease))
        for column, values in ((ids, row.token_ids), (positions, row.positions), (slots, own_slots)):
            column[b, :n] = values
            column[b, n:] = values[-1]
    contexts = [allocator.context_length(row.lease.region) for row in rows]
    num_keys = max(context + row.visible.shape[1] for context, row in zip(contexts, rows, strict=True))
    return ForwardBatch(
        ids_BN=torch.from_numpy(ids).to(device, non_blocking=True),
        positions_BN=torch.from_numpy(positions).to(device, non_blocking=True),
        slots_T=torch.from_numpy(slots.reshape(-1)).to(device, non_blocking=True),
        regions=region_index([stripes.local(row.lease.region) for row in rows], device),
        num_keys=num_keys,
        bias_BNK=_bias(rows, contexts, N, num_keys, dtype, device),
        logit_rows=_logit_rows(rows, N, device),
        wanted=wanted,
    )


def region_index(regions: list[int], device: torch.device) -> slice | torch.Tensor:
    """Adjacent regions are read as a view; others are gathered."""
    first = regions[0]
    if regions == list(range(first, first + len(regions))):
        return slice(first, first + len(regions))
    return torch.tensor(regions, device=device)


def _bias(
    rows: Sequence[ForwardRow], contexts: list[int], N: int, K: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    if len(rows) == 1 and N == 1 and rows[0].visible.all():
        return None
    bias = np.full((len(rows), N, K), -np.inf, dtype=np.float32)
    for b, (row, context) in enumerate(zip(rows, contexts, strict=True)):
        n, M = row.visible.shape
        bias[b, :, :context] = 0.0
        bias[b, :n, context : context + M][row.visible] = 0.0
        bias[b, n:] = bias[b, n - 1]  # padding repeats the last token in this too
    return torch.from_numpy(bias).to(device, dtype, non_blocking=True)


def _logit_rows(rows: Sequence[ForwardRow], N: int, device: torch.device) -> torch.Tensor | None:
    wanted = [
        b * N + index
        for b, row in enumerate(rows)
        for index in range(len(row.token_ids) - row.num_logits, len(row.token_ids))
    ]
    return None if len(wanted) == len(rows) * N else torch.tensor(wanted, dtype=torch.int64, device=device)
