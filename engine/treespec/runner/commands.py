"""One driver decides, the other ranks follow: what it broadcasts before every pass and every commit.

Legend: B requests, N new tokens, K key slots, R rows whose logits are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    def forward(self, batches: Sequence[ForwardBatch]) -> None:
        """A pass begins, in these micro-batches. All are told at once: a rank that computes the first cannot listen."""
        heads, parts = [], []
        for batch in batches:
            B, N = batch.ids_BN.shape
            num_rows = NONE if batch.logit_rows is None else len(batch.logit_rows)
            heads.append([B, N, batch.num_keys, num_rows, int(batch.bias_BNK is not None)])
            parts += [batch.ids_BN, batch.positions_BN, batch.slots_T, _region_list(batch.regions)]
            parts += [] if batch.logit_rows is None else [batch.logit_rows]
            parts += [] if batch.bias_BNK is None else [(batch.bias_BNK == 0).to(torch.int64)]
        numbers = [torch.tensor(heads, dtype=torch.int64), *parts]
        self._tell(Command.FORWARD, len(batches), sum(part.numel() for part in numbers), numbers)

    def move(self, moves: Sequence[SlotMoves]) -> None:
        """A commit copies slots."""
        sources = np.concatenate([move.sources for move in moves])
        targets = np.concatenate([move.targets for move in moves])
        if len(sources):
            slots = torch.from_numpy(np.concatenate([sources, targets]))
            self._tell(Command.MOVE, len(sources), len(slots), [slots])

    def stop(self) -> None:
        """Nothing follows."""
        self._tell(Command.STOP, 0, 0, [])

    def _tell(self, command: Command, count: int, num_numbers: int, parts: Sequence[Tensor]) -> None:
        device = self._group.device
        self._group.broadcast(torch.tensor([command, count, num_numbers], dtype=torch.int64, device=device))
        if parts:
            self._group.broadcast(torch.cat([part.reshape(-1).to(device, torch.int64) for part in parts]))


@contextmanager
def driving(group: ProcessGroup | None) -> Iterator[None]:
    """While this is held other ranks may follow; they are let go at the end, also after a failure of the driver's."""
    try:
        yield
    finally:
        if group is not None:
            Driver(group).stop()


def follow(decoder: Decoder, pool: KVCachePool, group: ProcessGroup) -> None:
    """Do what the driver says until it stops."""
    while True:
        command, count, num_numbers = _receive(3, group).tolist()
        if command == Command.STOP:
            return
        numbers = _receive(num_numbers, group)
        with torch.inference_mode():
            if command == Command.FORWARD:
                for batch in _batches(numbers, count, decoder):
                    decoder.forward(batch, pool)
            else:
                sources, targets = numbers.cpu().numpy().reshape(2, count)
                pool.move([SlotMoves(sources, targets)])


def _receive(size: int, group: ProcessGroup) -> Tensor:
    return group.broadcast(torch.empty(size, dtype=torch.int64, device=group.device))


def _batches(numbers: Tensor, count: int, decoder: Decoder) -> list[ForwardBatch]:
    heads, rest = numbers.split([5 * count, len(numbers) - 5 * count])
    batches = []
    for B, N, K, num_rows, has_bias in heads.view(count, 5).tolist():
        sizes = [B * N, B * N, B * N, B, max(num_rows, 0), B * N * K if has_bias else 0]
        ids, positions, slots, regions, rows, visible, rest = rest.split([*sizes, len(rest) - sum(sizes)])
        bias = None
        if has_bias:
            bias = torch.zeros(B, N, K, dtype=decoder.dtype, device=decoder.device)
            bias.masked_fill_(visible.view(B, N, K) == 0, -torch.inf)
        batch = ForwardBatch(
            ids_BN=ids.view(B, N),
            positions_BN=positions.view(B, N),
            slots_T=slots,
            regions=region_index(regions.tolist(), decoder.device),
            num_keys=K,
            bias_BNK=bias,
            logit_rows=None if num_rows == NONE else rows,
        )
        batches.append(batch)
    return batches


def _region_list(regions: slice | Tensor) -> Tensor:
    return torch.arange(regions.start, regions.stop) if isinstance(regions, slice) else regions
