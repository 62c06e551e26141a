"""What a speculation step costs, from ``verify_costs.csv``, and what it gains: the sums behind two figures.

Legend: B requests of a batch, N nodes of a request's tree, its root included, D levels of its draft; r the rate at
which a proposed token is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from figures.drawing.captions import left_out
from figures.reading.researcher_tables import CostCurve, Weights
from figures.reading.tables import SIZES, Scenario

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """The measured times of a placement that stands for its models and weights."""

    target: CostCurve
    draft_level: CostCurve | None


@dataclass(frozen=True)
class Planned:
    """What is planned to be timed with drafts, and what is known of its costs."""

    weights: list[Weights]
    costs: dict[Weights, Costs]
    """Of those weights that have any, in their order."""
    functional: list[Scenario]
    """Scenarios whose times mean nothing."""

    @property
    def nothing_yet(self) -> str:
        """What stands in a plot without a single measurement."""
        return f"no records yet (0/{len(self.weights)})" if self.weights else "nothing is planned to be timed"

    @property
    def left_out(self) -> str:
        """The sentence of what is not drawn because its times mean nothing."""
        return left_out(self.functional)

    @property
    def targets(self) -> str:
        """The sentence of what was measured: a panel's name does not say whether a model is inflated."""
        curves = [costs.target for costs in self.costs.values()]
        described = dict.fromkeys(curve.target_description or curve.weights.target for curve in curves)
        return f"Target{'s' if len(described) > 1 else ''}: {'; '.join(described)}." if described else ""

    @property
    def machines(self) -> str:
        """The sentence of what was measured where."""
        curves = [costs.target for costs in self.costs.values()]
        threads = [f", {curve.num_threads} threads" if curve.num_threads else "" for curve in curves]
        machines = [f"{curve.device or 'unknown device'}{told}" for curve, told in zip(curves, threads, strict=True)]
        return f"Measured on {' and '.join(dict.fromkeys(machines))}." if machines else ""


def planned_costs(curves: Sequence[CostCurve], scenarios: Sequence[Scenario], sizes: Sequence[str] = SIZES) -> Planned:
    """The costs of all weights of these sizes; of several placements of the same weights, the first stands for all."""
    speculative = [scenario for scenario in scenarios if scenario.draft is not None]
    timed = dict.fromkeys(Weights.of(scenario) for scenario in speculative if not scenario.is_functional)
    weights = sorted((each for each in timed if each.size in sizes), key=lambda each: each.order)
    functional = [scenario for scenario in dict.fromkeys(speculative) if scenario.is_functional]
    drafts = {curve.placement: curve for curve in curves if curve.part == "draft_level"}
    costs: dict[Weights, Costs] = {}
    for each in weights:
        targets = [curve for curve in curves if curve.part == "target" and curve.weights == each]
        if targets:
            costs[each] = Costs(targets[0], drafts.get(targets[0].placement))
    return Planned(weights, costs, functional)


def time_at(curve: CostCurve, rows: Floats) -> Floats:
    """Milliseconds of a pass: linear between measured numbers of rows, beyond the last on the line of the last two."""
    # A time below one of fewer rows is noise.
    times = np.maximum.accumulate(curve.time_ms)
    ms = np.interp(rows, curve.rows, times)
    if len(curve.rows) > 1:
        slope = (times[-1] - times[-2]) / (curve.rows[-1] - curve.rows[-2])
        ms = ms + slope * np.maximum(rows - curve.rows[-1], 0)
    return np.asarray(ms, dtype=np.float64)


@dataclass(frozen=True)
class TreeShape:
    """A tree of a fixed number of children per step."""

    expansion: tuple[int, ...]

    @property
    def name(self) -> str:
        """As tables write it."""
        return ".".join(str(width) for width in self.expansion)

    @property
    def level_nodes(self) -> tuple[int, ...]:
        """Nodes of every level, the root's first: all but the last are what the draft runs."""
        return tuple(int(nodes) for nodes in np.cumprod([1, *self.expansion]))

    @property
    def num_nodes(self) -> int:
        """N: what the target verifies."""
        return sum(self.level_nodes)

    def tokens_per_step(self, rate: Floats) -> Floats:
        """1 + the depth that is accepted, if every further child takes the same share r of what its elders left."""
        reached, tokens = np.ones_like(rate), np.ones_like(rate)
        for width in self.expansion:
            reached = reached * (1 - (1 - rate) ** width)
            tokens = tokens + reached
        return tokens

    def speedup(self, costs: Costs, batch_size: Floats, rate: Floats) -> Floats:
        """Over incremental decoding at the same batch size: tokens per step / (time of a step / t(B))."""
        assert costs.draft_level is not None
        draft_ms = sum(time_at(costs.draft_level, batch_size * nodes) for nodes in self.level_nodes[:-1])
        step_ms = draft_ms + time_at(costs.target, batch_size * self.num_nodes)
        return np.asarray(self.tokens_per_step(rate) * time_at(costs.target, batch_size) / step_ms)

    def rate_of(self, tokens_per_step: float) -> float:
        """The r at which it emits so many tokens per step; 0 or 1 beyond what it can."""
        rates = np.linspace(0, 1, 1001)
        return float(np.interp(tokens_per_step, self.tokens_per_step(rates), rates))


CHAIN = TreeShape((1,) * 8)
"""The depth that the paper and the artifact speculate to."""
PUBLISHED_TREE = TreeShape((1, 1, 3, 1, 1, 1, 1, 1))
"""Paper, all end-to-end runs."""
