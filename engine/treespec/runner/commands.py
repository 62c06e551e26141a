"""One driver decides, the other ranks follow: what it broadcasts before every pass and every commit.

Legend: B requests, N new tokens, K key slots, R rows whose logits are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from treespec.kvcache.allocator import SlotMoves
from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import Decoder, ForwardBatch
from treespec.parallel.process_group import ProcessGroup
from treespec.runner.batch import region_index

NONE = -1


class Command(IntEnum):
    """What a follower is told to do."""

    STOP = 0
    FORWARD = 1
    MOVE = 2


class Driver:
    """Tells the other ranks what this one does."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def forward(self, batch: ForwardBatch) -> None:
        """A pass begins."""
        B, N = batch.ids_BN.shape
        regions = _region_list(batch.regions)
        num_rows = NONE if batch.logit_rows is None else len(batch.logit_rows)
        head = [Command.FORWARD, B, N, batch.num_keys, num_rows, int(batch.bias_BNK is not None)]
        parts = [batch.ids_BN, batch.positions_BN, batch.slots_T, regions]
        parts += [] if batch.logit_rows is None else [batch.logit_rows]
        parts += [] if batch.bias_BNK is None else [(batch.bias_BNK == 0).to(torch.int64)]
        self._tell(head, parts)

    def move(self, moves: Sequence[SlotMoves]) -> None:
        """A commit copies slots."""
        sources = np.concatenate([move.sources for move in moves])
        targets = np.concatenate([move.targets for move in moves])
        if len(sources):
            self._tell([Command.MOVE, len(sources), 0, 0, 0, 0], [torch.from_numpy(sources), torch.from_numpy(targets)])

    def stop(self) -> None:
        """Nothing follows."""
        self._tell([Command.STOP, 0, 0, 0, 0, 0], [])

    def _tell(self, head: Sequence[int], parts: Sequence[Tensor]) -> None:
        device = self._group.device
        self._group.broadcast(torch.tensor(head, dtype=torch.int64, device=device))
        if parts:
            self._group.broadcast(torch.cat([part.reshape(-1).to(device, torch.int64) for part in parts]))


def follow(decoder: Decoder, pool: KVCachePool, group: ProcessGroup) -> None:
    """Do what the driver says until it stops."""
    while True:
        head = group.broadcast(torch.empty(6, dtype=torch.int64, device=group.device)).tolist()
        match head[0]:
            case Command.STOP:
                return
            case Command.FORWARD:
                with torch.inference_mode():
                    decoder.forward(_batch(head, decoder, group), pool)
            case Command.MOVE:
                slots = group.broadcast(torch.empty(2 * head[1], dtype=torch.int64, device=group.device)).cpu().numpy()
                with torch.inference_mode():
                    pool.move([SlotMoves(slots[: head[1]], slots[head[1] :])])


def _batch(head: Sequence[int], decoder: Decoder, group: ProcessGroup) -> ForwardBatch:
    _, B, N, K, num_rows, has_bias = head
    sizes = [B * N, B * N, B * N, B, max(num_rows, 0), B * N * K if has_bias else 0]
    numbers = group.broadcast(torch.empty(sum(sizes), dtype=torch.int64, device=group.device))
    ids, positions, slots, regions, rows, visible = numbers.split(sizes)
    bias = None
    if has_bias:
        bias = torch.zeros(B, N, K, dtype=decoder.dtype, device=decoder.device)
        bias.masked_fill_(visible.view(B, N, K) == 0, -torch.inf)
    return ForwardBatch(
        ids_BN=ids.view(B, N),
        positions_BN=positions.view(B, N),
        slots_T=slots,
        regions=region_index(regions.tolist(), decoder.device),
        num_keys=K,
        bias_BNK=bias,
        logit_rows=None if num_rows == NONE else rows,
    )


def _region_list(regions: slice | Tensor) -> Tensor:
    return torch.arange(regions.start, regions.stop) if isinstance(regions, slice) else regions
