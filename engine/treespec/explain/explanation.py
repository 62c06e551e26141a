"""One scenario explained: its speed-up taken apart into tokens per step and what a step costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from treespec.explain.observed import Observed
from treespec.explain.prediction import (
    MAX_DEPTH,
    CountedAcceptance,
    acceptance_per_level,
    predicted_tokens,
    step_ratio,
)
from treespec.metrics.cost import CostModel
from treespec.serving.comparison import interval_of_sample
from treespec.tree import Topology
from treespec.tree.search import best_topology

_VERIFYING = ("build", "forward", "verify", "commit")
_PLAIN = "incremental decoding: what the others are compared with"
_NO_BASELINE = "no incremental record of the same conditions: whether it pays is not known"
ODD_SHARE = 0.25  # of the time, for a part that should cost next to nothing


@dataclass(frozen=True)
class DepthAcceptance:
    """Below a reached node of a depth, root 0: how often some child was accepted, and how often the first."""

    depth: int  # of the children, from 1
    num_reached: int
    rate: float
    first_rate: float


@dataclass(frozen=True)
class Speedup:
    """Incremental over this scenario, paired by prompt and repeat, with its 95 % interval."""

    baseline: str
    median: float
    low: float | None  # None: one sample has no interval
    high: float | None


@dataclass(frozen=True)
class Prediction:
    """What the acceptance by depth and rank, and the measured costs of passes, let expect."""

    num_nodes: int
    tokens_per_step: float
    speedup: float | None  # None where no costs were measured


@dataclass(frozen=True)
class Explanation:
    """A scenario, what it is compared with, and the verdict."""

    observed: Observed
    depths: tuple[DepthAcceptance, ...]
    speedup: Speedup | None
    prediction: Prediction | None
    verdict: str

    @property
    def break_even_tokens(self) -> float | None:
        """Tokens per step at which it would be as fast as incremental decoding."""
        return None if self.speedup is None else self.observed.tokens_per_step / self.speedup.median

    @property
    def break_even_acceptance(self) -> float | None:
        """The same as acceptance per level; above 1: not even full acceptance would do."""
        tokens = self.break_even_tokens
        return None if tokens is None or not self.depths else acceptance_per_level(tokens, len(self.depths))

    @property
    def acceptance(self) -> float | None:
        """Acceptance per level with which its trees would emit what they did."""
        return acceptance_per_level(self.observed.tokens_per_step, len(self.depths)) if self.depths else None


def explain_all(scenarios: Sequence[Observed], among: Sequence[Observed]) -> list[Explanation]:
    """Every scenario against the incremental one of the same conditions in ``among``, where there is one."""
    baselines: dict[str, Observed] = {}
    for observed in among:
        if not observed.speculates:
            baselines.setdefault(observed.conditions, observed)
    return [explain(observed, baselines.get(observed.conditions)) for observed in scenarios]


def explain(observed: Observed, baseline: Observed | None) -> Explanation:
    """One scenario; without a baseline there is no speed-up and no break-even."""
    odd = _odd_part(observed)
    if not observed.speculates:
        return Explanation(observed, (), None, None, odd or _PLAIN)
    speedup = _speedup(observed, baseline) if baseline is not None else None
    depths = _depths(observed)
    prediction = _prediction(observed, baseline)
    verdict = _NO_BASELINE if baseline is None or speedup is None else _verdict(observed, baseline, speedup)
    return Explanation(observed, depths, speedup, prediction, f"{verdict}; {odd}" if odd else verdict)


def _speedup(observed: Observed, baseline: Observed) -> Speedup | None:
    ours = {(r.repeat, r.prompt_index): r.ms_per_token for r in observed.requests}
    theirs = {(r.repeat, r.prompt_index): r.ms_per_token for r in baseline.requests}
    ratios = np.array([theirs[key] / ours[key] for key in ours if key in theirs])
    if not len(ratios):
        return None
    low, high = interval_of_sample(ratios)
    return Speedup(baseline.name, float(np.median(ratios)), low, high)


def _depths(observed: Observed) -> tuple[DepthAcceptance, ...]:
    reached_D, accepted_DK = observed.offered_counts[:, :1].sum(axis=1), observed.accepted_counts
    return tuple(
        DepthAcceptance(depth + 1, int(reached), float(row_K.sum() / reached), float(row_K[0] / reached))
        for depth, (reached, row_K) in enumerate(zip(reached_D, accepted_DK, strict=True))
        if reached
    )


def _prediction(observed: Observed, baseline: Observed | None) -> Prediction | None:
    """For one draft model; its trees are the configured ones, or (chosen as it went) the best of their mean size."""
    drafting = observed.drafting
    if not observed.drafts_with_one_model or not observed.offered_counts.size:
        return None
    acceptance_DK = CountedAcceptance(observed.offered_counts, observed.accepted_counts).table()
    if drafting[0]["tree"] == "expansion":
        topology = Topology.from_expansion(drafting[0]["expansion"])
    else:
        topology = best_topology(acceptance_DK, round(observed.nodes_per_step), min(MAX_DEPTH, len(acceptance_DK)))
    num_tokens = sum(request.num_output_tokens for request in observed.requests) / len(observed.requests)
    # The first token is the prompt's: its step drafts nothing.
    num_steps = (num_tokens - 1) / predicted_tokens(acceptance_DK, topology)
    cost = costs_of([observed, *([baseline] if baseline is not None else [])], drafting[0]["model"])
    ratio = None if cost is None else step_ratio(cost, observed.batch_size, topology)
    speedup = None if ratio is None else num_tokens / (1 + num_steps * ratio)
    return Prediction(len(topology), num_tokens / (1 + num_steps), speedup)


def costs_of(scenarios: Sequence[Observed], model: int) -> CostModel | None:
    """The first measured costs of a draft model."""
    return next((observed.costs[model] for observed in scenarios if model in observed.costs), None)


def drag_of(explanations: Sequence[Explanation]) -> float:
    """Predicted over measured speed-up, the median of those that have both: what the model does not know of; else 1."""
    ratios = [
        item.prediction.speedup / item.speedup.median
        for item in explanations
        if item.speedup is not None and item.prediction is not None and item.prediction.speedup is not None
    ]
    return median(ratios) if ratios else 1.0


def _odd_part(observed: Observed) -> str:
    """Word of a part that takes much and should not: neither a model runs in it nor anything waits for one."""
    shares = {part: share for part, share in observed.shares.items() if part not in ("forward", "draft")}
    part = max(shares, key=lambda name: shares[name], default="")
    if not part or shares[part] < ODD_SHARE:
        return ""
    return f"{shares[part]:.0%} of the time is {part}, where no model runs: the models are small for this machine"


def _verdict(observed: Observed, baseline: Observed, speedup: Speedup) -> str:
    """Whether it pays, and else what mends it: first what is too dear and would be enough if free."""
    tokens, ratio = observed.tokens_per_step, observed.tokens_per_step / speedup.median
    head = f"{tokens:.2f} tokens per step at {ratio:.2f} times the step"
    plain_ms = sum(baseline.part_ms_per_step(part) for part in baseline.part_us)
    shares = {
        "drafting": observed.part_ms_per_step("draft") - baseline.part_ms_per_step("draft"),
        "verifying": sum(observed.part_ms_per_step(part) - baseline.part_ms_per_step(part) for part in _VERIFYING),
        "other work": observed.part_ms_per_step("other") - baseline.part_ms_per_step("other"),
    }
    dearest = max(shares, key=lambda name: shares[name])
    extra = f"{dearest} adds most to it ({shares[dearest] / plain_ms:+.2f} incremental steps)"
    if speedup.median > 1:
        sure = "it pays" + _doubt(speedup.low is not None and speedup.low > 1, speedup)
        return f"{sure}: {head}; {extra}"
    sure = "it does not pay" + _doubt(speedup.high is not None and speedup.high < 1, speedup)
    without = tokens / max(1e-9, ratio - shares[dearest] / plain_ms)
    if without > 1:
        return f"{sure}; {dearest} is too dear: {head}; {extra}, and without that it would pay"
    return f"{sure}; acceptance is too low: {head}; {extra}, and even without that it would not pay"


def _doubt(is_sure: bool, speedup: Speedup) -> str:
    if is_sure:
        return ""
    return ", but of one sample" if speedup.low is None else ", but within its uncertainty"
