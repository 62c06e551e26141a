"""One driver decides, the other ranks follow: what it broadcasts before every pass and every commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from treespec.errors import TreespecError
from treespec.kvcache.pool import KVCachePool
from treespec.metrics.traffic import Traffic
from treespec.model.decoder import Decoder, Wanted
from treespec.parallel.process_group import Arrival, ProcessGroup
from treespec.runner.encoding import (
    EVERY,
    ForwardPart,
    MovePart,
    forward_numbers,
    forward_parts,
    move_numbers,
    move_parts,
)

TARGET = 0
HEAD = 4  # numbers of a command before its parts: what to do, with which model, in how many parts, of how many numbers


class Command(IntEnum):
    """What a follower is told to do."""

    STOP = 0
    FORWARD = 1
    MOVE = 2
    REPORT = 3


@dataclass(frozen=True)
class HeldModel:
    """What a rank holds of a model: its part of the target, or a draft model that it owns."""

    decoder: Decoder
    pool: KVCachePool


class Driver:
    """Tells the other ranks what is done with one model, and takes in what those that own it find out."""

    def __init__(self, group: ProcessGroup, model: int = TARGET) -> None:
        self._group = group
        self._model = model

    @property
    def rank(self) -> int:
        """This rank."""
        return self._group.mesh.rank

    def forward(self, parts: Sequence[ForwardPart]) -> None:
        """A pass begins, in these parts. All are told at once: a rank that computes the first cannot listen."""
        _tell(self._group, Command.FORWARD, self._model, len(parts), forward_numbers(parts))

    def rows_of(self, part: ForwardPart, dtype: torch.dtype, vocab_size: int) -> Arrival:
        """What the part's owner returns; ``forward`` has told it."""
        R = part.batch.num_rows
        if not R:
            return Arrival(torch.empty(0, vocab_size, dtype=dtype, device=self._group.device))
        if part.batch.wanted is Wanted.LIKELIEST:
            return self._group.expect((R,), torch.int64, part.owner)
        return self._group.expect((R, vocab_size), dtype, part.owner)

    def move(self, parts: Sequence[MovePart]) -> None:
        """A commit copies slots."""
        _tell(self._group, Command.MOVE, self._model, len(parts), move_numbers(parts))


def collect_traffic(group: ProcessGroup) -> list[Traffic]:
    """What every rank counted since this was last asked, by rank; asking is not counted."""
    own = group.take_traffic()
    _tell(group, Command.REPORT, TARGET, 0, [])
    group.take_traffic()
    return group.gather_traffic(own)


@contextmanager
def driving(group: ProcessGroup | None) -> Iterator[None]:
    """While this is held other ranks may follow; they are let go at the end, and after a user's mistake.

    Any other failure may leave them in the middle of a pass, where they cannot listen: they notice that this rank is
    gone.
    """
    try:
        yield
    except TreespecError:
        _stop(group)
        raise
    _stop(group)


def follow(models: Mapping[int, HeldModel], group: ProcessGroup) -> None:
    """Do what the driver says until it stops; ``models`` by the number that commands name them with."""
    rank = group.mesh.rank
    while True:
        command, model, count, num_numbers = _receive(HEAD, group).tolist()
        if command == Command.STOP:
            return
        if command == Command.REPORT:
            group.gather_traffic(group.take_traffic())
            continue
        numbers = _receive(num_numbers, group)
        if model not in models:  # a draft model of other ranks
            continue
        with torch.inference_mode():
            if command == Command.FORWARD:
                _forward(models[model], numbers, count, group)
            else:
                moves = [part.moves for part in move_parts(numbers, count) if part.owner in (EVERY, rank)]
                models[model].pool.move(moves)


def _forward(held: HeldModel, numbers: Tensor, count: int, group: ProcessGroup) -> None:
    for part in forward_parts(numbers, count, held.decoder.dtype, held.decoder.device):
        if part.owner not in (EVERY, group.mesh.rank):
            continue
        rows = held.decoder.forward(part.batch, held.pool).rows
        if part.owner != EVERY and len(rows):
            group.return_rows(rows)


def _stop(group: ProcessGroup | None) -> None:
    if group is not None and group.has_met:
        _tell(group, Command.STOP, TARGET, 0, [])


def _tell(group: ProcessGroup, command: Command, model: int, count: int, parts: Sequence[Tensor]) -> None:
    num_numbers = sum(part.numel() for part in parts)
    group.broadcast(torch.tensor([command, model, count, num_numbers], dtype=torch.int64, device=group.device))
    if parts:
        group.broadcast(torch.cat([part.reshape(-1).to(group.device, torch.int64) for part in parts]))


def _receive(size: int, group: ProcessGroup) -> Tensor:
    return group.broadcast(torch.empty(size, dtype=torch.int64, device=group.device))
