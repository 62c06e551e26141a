"""Packs the rows of several requests into one padded batch.

Legend: B requests, n tokens of one row, N tokens per request after padding, M speculative slots, K key slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treespec.kvcache.allocator import Lease, SlotAllocator
from treespec.model.decoder import ForwardBatch


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
    num_logits: int  # logits wanted of the last so many tokens


def pack_rows(
    rows: Sequence[ForwardRow], allocator: SlotAllocator, dtype: torch.dtype, device: torch.device
) -> ForwardBatch:
    """One batch, request-major. A row's padding repeats its last token: same slot, same keys, nothing changes."""
    B, N = len(rows), max(len(row.token_ids) for row in rows)
    ids, positions, slots = (np.empty((B, N), dtype=np.int64) for _ in range(3))
    for b, row in enumerate(rows):
        n = len(row.token_ids)
        for column, values in ((ids, row.token_ids), (positions, row.positions), (slots, allocator.slots(row.lease))):
            column[b, :n] = values
            column[b, n:] = values[-1]
    contexts = [allocator.context_length(row.lease.region) for row in rows]
    num_keys = max(context + row.visible.shape[1] for context, row in zip(contexts, rows, strict=True))
    return ForwardBatch(
        ids_BN=torch.from_numpy(ids).to(device, non_blocking=True),
        positions_BN=torch.from_numpy(positions).to(device, non_blocking=True),
        slots_T=torch.from_numpy(slots.reshape(-1)).to(device, non_blocking=True),
        regions=region_index([row.lease.region for row in rows], device),
        num_keys=num_keys,
        bias_BNK=_bias(rows, contexts, N, num_keys, dtype, device),
        logit_rows=_logit_rows(rows, N, device),
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
