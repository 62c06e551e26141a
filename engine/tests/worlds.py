"""A simulated world of known acceptance and cost, in which policies choose trees."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate

import numpy as np

from treespec.draft.auto_policy import AutoPolicy
from treespec.draft.policy import TreePolicy
from treespec.metrics.acceptance import StepOutcome
from treespec.metrics.cost import CostModel, TimeCurve
from treespec.tree import Topology
from treespec.tree.search import best_topologies

ALONE = Topology((-1,))
DEPTH, NODES = 6, 32
DRAFT = TimeCurve((1, 64), (1.0, 1.6))
FLAT = CostModel(TimeCurve((1, 256), (20.0, 24.0)), DRAFT)  # more rows cost little: a large accelerator
STEEP = CostModel(TimeCurve((1, 256), (20.0, 20.0 + 255 * 10)), DRAFT)  # every row costs half a pass
LAPTOP = CostModel(TimeCurve((1, 4, 8, 16, 32, 64), (22.2, 22.8, 26.2, 33.7, 52.1, 91.2)), DRAFT)  # docs/benchmarks.md

GOOD = (0.7, 0.12, 0.05, 0.03, 0.02, 0.0, 0.0, 0.0)
POOR = (0.12, 0.05, 0.03, 0.02, 0.01, 0.0, 0.0, 0.0)


@cache
def model_ms(cost: CostModel, topology: Topology, batch_size: int) -> float:
    """What the model says of a step."""
    parents = [node for node in range(len(topology)) if topology.children[node]]
    level_rows = np.bincount(topology.depths[parents]) if parents else np.zeros(1)
    return float(cost.step_ms(batch_size, len(topology), level_rows))


@dataclass
class World:
    """Serves requests whose children are accepted as ``acceptance [K]`` says, in steps that take what ``cost`` says."""

    cost: CostModel
    acceptance: tuple[float, ...]
    drag: float = 1.0  # true over modelled time of speculating steps
    noise: float = 0.0  # spread of a step's time
    share_in_bursts: float = 0.0  # of the steps; bursts last some 25 steps, in which all takes three times as long
    now: float = 0.0
    in_burst: bool = False
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def clock(self) -> float:
        return self.now

    def step_ms(self, topology: Topology, batch_size: int) -> float:
        drag = self.drag if len(topology) > 1 else 1.0
        return drag * model_ms(self.cost, topology, batch_size)

    def outcome(self, topology: Topology) -> StepOutcome:
        node, offered, ranks = 0, [], []
        while children := topology.children[node]:
            offered.append(len(children))
            rank = bisect_right(list(accumulate(self.acceptance[: len(children)])), self.rng.random())
            if rank == len(children):
                break
            ranks.append(rank)
            node = children[rank]
        return StepOutcome(tuple(offered), tuple(ranks))

    def serve(self, policy: TreePolicy, steps: int, batch_size: int = 1) -> float:
        """Milliseconds per token of a request, as they would be undisturbed; the policy's clock shows disturbances."""
        spent_ms, tokens = 0.0, 0
        for _ in range(steps):
            topology = policy.topology(batch_size)
            ms = self.step_ms(topology, batch_size)
            spent_ms += ms
            self.now += ms / 1000 * self.disturbance()
            outcomes = [self.outcome(topology) for _ in range(batch_size)]
            policy.observe(outcomes)
            tokens += sum(outcome.num_emitted for outcome in outcomes)
        return spent_ms * batch_size / tokens

    def disturbance(self) -> float:
        share = self.share_in_bursts
        if self.rng.random() < (1 / 25 if self.in_burst else share / (1 - share) / 25):
            self.in_burst = not self.in_burst
        return (1 + self.noise * abs(self.rng.gauss(0, 1))) * (3 if self.in_burst else 1)

    def expected_ms(self, topology: Topology, batch_size: int) -> float:
        """Milliseconds per token of a request with always the same tree, exactly."""
        values = [1.0]
        rank = {child: k for children in topology.children for k, child in enumerate(children)}
        for node, parent in enumerate(topology.parents[1:], start=1):
            values.append(values[parent] * self.acceptance[rank[node]])
        return self.step_ms(topology, batch_size) / sum(values)

    def best_ms(self, batch_size: int) -> float:
        """Of all best trees, without speculation included."""
        nested = [best_topologies([self.acceptance], NODES, depth) for depth in range(1, DEPTH + 1)]
        trees = [trees.topology(n) for trees in nested for n in range(2, len(trees) + 1)]
        return min(self.expected_ms(topology, batch_size) for topology in [ALONE, *trees])

    def policy(self) -> AutoPolicy:
        return AutoPolicy(self.cost, NODES, DEPTH, clock=self.clock)


@dataclass
class AlwaysSame:
    """A policy of one tree."""

    tree: Topology

    def topology(self, batch_size: int) -> Topology:
        return self.tree

    def observe(self, outcomes: list[StepOutcome]) -> None:
        pass
