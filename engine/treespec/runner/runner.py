"""Runs a model over rows of requests, wherever its weights are; several runs may be outstanding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treespec.kvcache.allocator import SlotAllocator, SlotMoves
from treespec.kvcache.pool import CacheShape, KVCachePool
from treespec.model.decoder import Decoder, Wanted
from treespec.parallel.process_group import Arrival
from treespec.runner.batch import ForwardRow, Stripes, pack_rows
from treespec.runner.commands import Driver
from treespec.runner.encoding import EVERY, ForwardPart, MovePart


@dataclass(frozen=True, eq=False)
class RunResult:
    """What was wanted of the tokens, row after row; ``starts[i]`` is the first of row i, one more entry ends them."""

    rows: Tensor  # logits [R, V], or likeliest tokens, int64 [R]
    starts: tuple[int, ...]

    @property
    def logits_RV(self) -> Tensor:  # noqa: N802
        """The rows of a run that logits were wanted of."""
        assert self.rows.dim() == 2, "logits were not asked for"
        return self.rows


@dataclass(eq=False)
class RunHandle:
    """A submitted run; its leases stay until its result is taken or it is cancelled."""

    rows: tuple[ForwardRow, ...]
    order: tuple[int, ...]  # of the rows in the outputs
    outputs: tuple[Arrival, ...] | None
    event: torch.cuda.Event | None = None


def cache_shape(decoder: Decoder, num_regions: int, region_capacity: int) -> CacheShape:
    """The cache of the layers and heads that this rank holds."""
    spec, mesh = decoder.spec, decoder.mesh
    num_layers, num_heads = len(mesh.layers(spec.num_layers)), len(mesh.kv_heads(spec.num_kv_heads))
    return CacheShape(num_layers, num_heads, spec.head_dim, num_regions, region_capacity)


class ModelRunner:
    """The only caller of a decoder: owns its cache and the leases of its runs.

    Work is queued on the device in submission order: on a CPU a run is done when ``submit`` returns, on a GPU
    ``poll`` asks the device. The cache outlives every run.

    A model has owners: the ranks that compute its passes, each for the regions that are its own (every so many-th).
    The target has one, all ranks together; on a single rank that is this one. Owners work at the same time.
    """

    def __init__(
        self,
        decoder: Decoder,
        num_regions: int,
        region_capacity: int,
        driver: Driver | None = None,
        owners: Sequence[int] = (EVERY,),
        micro_batch_tokens: int = 1,
    ) -> None:
        self.decoder = decoder
        self.allocator = SlotAllocator(num_regions, region_capacity)
        self._driver = driver  # of the other ranks that hold this model or parts of it
        self._owners = tuple(owners)
        self._micro_batch_tokens = micro_batch_tokens
        self._stripes = Stripes(len(self._owners), region_capacity)
        num_local = self._stripes.num_local(num_regions) if any(map(self._is_here, self._owners)) else 0
        self.pool = KVCachePool(cache_shape(decoder, num_local, region_capacity), decoder.dtype, decoder.device)

    def reset(self) -> None:
        """Free every region, whatever holds it; the tensors stay."""
        self.allocator = SlotAllocator(self.allocator.num_regions, self.allocator.region_capacity)

    @torch.inference_mode()
    def submit(self, rows: Sequence[ForwardRow], wanted: Wanted = Wanted.LOGITS) -> RunHandle:
        """Queue one pass over ``rows``; in a pipeline a large one as several, so that no stage waits for it all."""
        order, parts = [], []
        for owner, indexes in self._division(rows):
            own = [rows[index] for index in indexes]
            batch = pack_rows(own, self.allocator, self._stripes, self.decoder.dtype, self.decoder.device, wanted)
            order += indexes
            parts.append(ForwardPart(owner, batch))
        if self._driver is not None:
            self._driver.forward(parts)
        outputs = self._run(parts)
        event = None
        if self.decoder.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        return RunHandle(tuple(rows), tuple(order), tuple(outputs), event)

    def poll(self, handle: RunHandle) -> bool:
        """Whether ``result`` would return at once, as far as this rank knows."""
        return handle.event is None or handle.event.query()

    @torch.inference_mode()
    def result(self, handle: RunHandle) -> RunResult:
        """The result of a run, waiting for the device and other ranks; its leases stay until ``commit``."""
        if handle.event is not None:
            handle.event.synchronize()
        assert handle.outputs is not None, "the run was cancelled"
        outputs = [output.wait() for output in handle.outputs]
        rows = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        counts = [row.num_logits for row in handle.rows]
        starts = [0, *np.cumsum(counts).tolist()]
        if handle.order != tuple(range(len(counts))):
            rows = rows[_restored(handle.order, counts)]
        return RunResult(rows, tuple(starts))

    def cancel(self, handle: RunHandle) -> None:
        """Give a run up: waits until the device has drained it, then releases its leases."""
        if handle.event is not None:
            handle.event.synchronize()
        handle.outputs = None
        for row in reversed(handle.rows):  # rows of one region lease one after the other
            self.allocator.release(row.lease)

    @torch.inference_mode()
    def commit(self, paths: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Turn leased slots into context: (region, offsets from the context's end) per request."""
        moves: list[list[SlotMoves]] = [[] for _ in self._owners]
        for region, offsets in paths:
            here = self._stripes.localised(region, self.allocator.commit(region, offsets))
            moves[self._stripes.stripe(region)].append(here)
        parts = [
            MovePart(owner, SlotMoves.together(own)) for owner, own in zip(self._owners, moves, strict=True) if own
        ]
        parts = [part for part in parts if len(part.moves.sources)]
        if self._driver is not None and parts:
            self._driver.move(parts)
        self.pool.move([part.moves for part in parts if self._is_here(part.owner)])

    def _is_here(self, owner: int) -> bool:
        return owner == EVERY or (self._driver is not None and owner == self._driver.rank)

    def _division(self, rows: Sequence[ForwardRow]) -> list[tuple[int, list[int]]]:
        """Owners with the indexes of the rows they are to compute, in micro-batches."""
        division = []
        for stripe, owner in enumerate(self._owners):
            own = [index for index, row in enumerate(rows) if self._stripes.stripe(row.lease.region) == stripe]
            num_tokens = sum(len(rows[index].token_ids) for index in own)
            num_parts = self.decoder.mesh.num_micro_batches(num_tokens, self._micro_batch_tokens)
            division += [(owner, part) for part in _parts(own, num_parts)]
        return division

    def _run(self, parts: Sequence[ForwardPart]) -> list[Arrival]:
        """Others first: what they return is awaited while this rank computes its own."""
        outputs: list[Arrival | None] = []
        for part in parts:
            if self._is_here(part.owner):
                outputs.append(None)
            else:
                assert self._driver is not None
                outputs.append(self._driver.rows_of(part, self.decoder.dtype, self.decoder.spec.vocab_size))
        return [
            output or Arrival(self.decoder.forward(part.batch, self.pool).rows)
            for output, part in zip(outputs, parts, strict=True)
        ]


def _parts(indexes: Sequence[int], num_parts: int) -> list[list[int]]:
    """Micro-batches of neighbouring rows, as equal as they get, at most so many."""
    size = max(1, -(-len(indexes) // num_parts))
    return [list(indexes[start : start + size]) for start in range(0, len(indexes), size)]


def _restored(order: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Where each wanted row is, request after request, among outputs whose requests come in another order."""
    starts: dict[int, int] = {}
    at = 0
    for index in order:
        starts[index] = at
        at += counts[index]
    return [start for index, count in enumerate(counts) for start in range(starts[index], starts[index] + count)]
