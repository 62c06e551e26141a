"""Measures what passes of the loaded models cost, so that trees can be chosen to fit the machine.

Legend: n rows of a pass, R regions of a cache, B requests, N tokens per request, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
from torch import Tensor

from treespec.metrics.cost import CostModel, TimeCurve
from treespec.runner import ForwardRow, ModelRunner

SECONDS = 2.0  # of target passes; the drafts' take a quarter of that
LONGEST_PASS = 0.05  # of the seconds; the curve ends with the first pass that takes longer
DEAREST_PASS = 4.0  # of a pass over one row, where that takes long by itself: weights come by, whatever is verified
MIN_ROUNDS = 3
CONTEXT = 64  # cached tokens per request; fewer where the cache is smaller
CHILDREN = 4  # chosen per node of a draft's level

Choose = Callable[[Tensor], Tensor]
Clock = Callable[[], float]


def measure_cost(target: ModelRunner, draft: ModelRunner, max_nodes: int, seconds: float = SECONDS) -> CostModel:
    """The cost model of a pair for trees of up to ``max_nodes``, root included.

    The runners must be idle, and are left so.
    """

    def likeliest(logits_RV: Tensor) -> Tensor:
        return logits_RV.argmax(dim=-1)

    def children(logits_RV: Tensor) -> Tensor:
        return logits_RV.topk(min(CHILDREN, logits_RV.shape[-1])).indices

    return CostModel(
        target=measure_curve(target, max_nodes, seconds, likeliest),
        draft_level=measure_curve(draft, max_nodes, seconds / 4, children),
    )


def measure_curve(
    runner: ModelRunner, max_nodes: int, seconds: float, choose: Choose, clock: Clock = time.monotonic
) -> TimeCurve:
    """Medians over rounds that each run every n once, the first left out; choosing tokens on the host included.

    n goes in powers of two from 1 to every region's ``max_nodes``, over as many requests as there are regions.
    """
    assert runner.allocator.num_free_regions == runner.allocator.num_regions, "the runner is in use"
    passes = _Passes(runner, max_nodes, choose, clock)
    times: dict[int, list[float]] = {}
    single = min(passes.seconds(1), passes.seconds(1))  # a first use may take long once
    longest = max(LONGEST_PASS * seconds, DEAREST_PASS * single)
    for n in passes.sizes():  # warm-up, and how far to go
        times[n] = []
        if passes.seconds(n) > longest and passes.seconds(n) > longest:
            break
    spent, rounds = 0.0, 0
    while spent < seconds or rounds < MIN_ROUNDS:
        for n, measured in times.items():
            measured.append(passes.seconds(n))
            spent += measured[-1]
        rounds += 1
    runner.reset()
    return TimeCurve.measured({n: 1000 * median(measured) for n, measured in times.items()})


class _Passes:
    """Passes over rows of made-up tokens after a context of blank slots: time does not depend on what they hold."""

    def __init__(self, runner: ModelRunner, max_nodes: int, choose: Choose, clock: Clock) -> None:
        allocator = runner.allocator
        assert max_nodes < allocator.region_capacity
        self._runner = runner
        self._max_nodes = max_nodes
        self._choose = choose
        self._clock = clock
        self._context = min(CONTEXT, allocator.region_capacity - max_nodes)
        self._regions = [allocator.admit() for _ in range(allocator.num_regions)]
        for region in self._regions:
            allocator.lease(region, self._context)
        runner.commit([(region, range(self._context)) for region in self._regions])

    def sizes(self) -> list[int]:
        """Rows to measure, ascending."""
        R, sizes, n = len(self._regions), set(), 1
        while n <= R * self._max_nodes:
            B = min(R, n)
            sizes.add(B * (n // B))
            n *= 2
        return sorted(sizes)

    def seconds(self, n: int) -> float:
        """Time of one pass over n rows."""
        B = min(len(self._regions), n)
        started = self._clock()
        rows = [self._row(region, n // B) for region in self._regions[:B]]
        self._choose(self._runner.result(self._runner.submit(rows)).logits_RV).tolist()
        elapsed = self._clock() - started
        self._runner.commit([(region, []) for region in self._regions[:B]])
        return elapsed

    def _row(self, region: int, N: int) -> ForwardRow:
        return ForwardRow(
            lease=self._runner.allocator.lease(region, N),
            token_ids=np.zeros(N, dtype=np.int64),
            positions=np.full(N, self._context - 1, dtype=np.int64),
            visible=np.tri(N, dtype=bool),
            num_logits=N,
        )
