"""Runs a decoder over rows of requests; several runs may be outstanding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.kvcache.allocator import SlotAllocator, SlotMoves
from treespec.kvcache.pool import CacheShape, KVCachePool
from treespec.model.decoder import Decoder
from treespec.runner.batch import ForwardRow, pack_rows
from treespec.runner.commands import Driver


@dataclass(frozen=True, eq=False)
class RunResult:
    """Logits of the wanted tokens, row after row; ``starts[i]`` is the first of row i, one more entry ends them."""

    logits_RV: Tensor
    starts: tuple[int, ...]


@dataclass(eq=False)
class RunHandle:
    """A submitted run; its leases stay until its result is taken or it is cancelled."""

    rows: tuple[ForwardRow, ...]
    output: RunResult | None
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
    """

    def __init__(self, decoder: Decoder, num_regions: int, region_capacity: int, driver: Driver | None = None) -> None:
        shape = cache_shape(decoder, num_regions, region_capacity)
        self.decoder = decoder
        self.allocator = SlotAllocator(num_regions, region_capacity)
        self.pool = KVCachePool(shape, decoder.dtype, decoder.device)
        self._driver = driver  # of ranks that hold the other parts of this model

    def reset(self) -> None:
        """Free every region, whatever holds it; the tensors stay."""
        self.allocator = SlotAllocator(self.allocator.num_regions, self.allocator.region_capacity)

    @torch.inference_mode()
    def submit(self, rows: Sequence[ForwardRow]) -> RunHandle:
        """Queue one forward pass over ``rows``; in a pipeline as several, so that no stage waits for a whole batch."""
        batches = [
            pack_rows(part, self.allocator, self.decoder.dtype, self.decoder.device)
            for part in _parts(rows, self.decoder.mesh.pipeline_degree)
        ]
        if self._driver is not None:
            self._driver.forward(batches)
        logits = [self.decoder.forward(batch, self.pool).logits_RV for batch in batches]
        starts = [0]
        for row in rows:
            starts.append(starts[-1] + row.num_logits)
        event = None
        if self.decoder.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        logits_RV = logits[0] if len(logits) == 1 else torch.cat(logits)
        return RunHandle(tuple(rows), RunResult(logits_RV, tuple(starts)), event)

    def poll(self, handle: RunHandle) -> bool:
        """Whether ``result`` would return at once."""
        return handle.event is None or handle.event.query()

    def result(self, handle: RunHandle) -> RunResult:
        """Logits of a run, waiting for the device; its leases stay until ``commit``."""
        if handle.event is not None:
            handle.event.synchronize()
        assert handle.output is not None, "the run was cancelled"
        return handle.output

    def cancel(self, handle: RunHandle) -> None:
        """Give a run up: waits until the device has drained it, then releases its leases."""
        if handle.event is not None:
            handle.event.synchronize()
        handle.output = None
        for row in handle.rows:
            self.allocator.release(row.lease)

    @torch.inference_mode()
    def commit(self, paths: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Turn leased slots into context: (region, offsets from the context's end) per request."""
        moves: list[SlotMoves] = [self.allocator.commit(region, offsets) for region, offsets in paths]
        if self._driver is not None and moves:
            self._driver.move(moves)
        self.pool.move(moves)


def _parts(rows: Sequence[ForwardRow], num_parts: int) -> list[Sequence[ForwardRow]]:
    """Micro-batches of neighbouring rows, as equal as they get, at most one per pipeline stage."""
    size = -(-len(rows) // num_parts)
    return [rows[start : start + size] for start in range(0, len(rows), size)]
