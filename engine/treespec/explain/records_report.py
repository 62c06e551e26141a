"""A folder of records explained: every scenario, and an outlook for every pair whose costs were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treespec.explain.explanation import Explanation, costs_of, drag_of, explain_all
from treespec.explain.observed import Observed
from treespec.explain.prediction import MAX_BATCH_SIZE, CountedAcceptance, Outlook, outlook
from treespec.explain.recommendation import recommendation
from treespec.explain.report import (
    cost_text,
    explanation_data,
    explanation_text,
    outlook_data,
    outlook_text,
    speedup_words,
)
from treespec.metrics.cost import CostModel

MAX_NAMES = 3


@dataclass(frozen=True)
class PairOutlook:
    """What the records of one pair, placement and kind of drafting let expect."""

    scenarios: tuple[str, ...]
    cost: CostModel
    outlooks: tuple[Outlook, ...]
    drag: float  # the outlooks are corrected for it
    fastest: tuple[Explanation, ...]  # of those with a measured speed-up, by batch size, ascending


@dataclass(frozen=True)
class RecordsExplained:
    """Everything that is said of a folder."""

    explanations: tuple[Explanation, ...]
    pairs: tuple[PairOutlook, ...]
    left_out: Mapping[str, str]

    def text(self) -> str:
        """For people."""
        blocks = [explanation_text(item) for item in self.explanations]
        for pair in self.pairs:
            told = f"by {_listed(pair.scenarios)}:"
            said = "\n".join([told, recommendation(pair.outlooks, pair.cost), *_fastest_words(pair.fastest)])
            blocks.append("\n\n".join([said, outlook_text(pair.outlooks, pair.drag), cost_text(pair.cost)]))
        return "\n\n".join(blocks)

    def data(self) -> dict[str, Any]:
        """For machines."""
        return {
            "scenarios": [explanation_data(item) for item in self.explanations],
            "pairs": [_pair_data(pair) for pair in self.pairs],
            "left_out": dict(self.left_out),
        }


def explain_records(
    scenarios: Sequence[Observed], among: Sequence[Observed], left_out: Mapping[str, str]
) -> RecordsExplained:
    """``among``: the records in which baselines are looked for."""
    return RecordsExplained(tuple(explain_all(scenarios, among)), tuple(_pairs(scenarios, among)), left_out)


def _pairs(scenarios: Sequence[Observed], among: Sequence[Observed]) -> list[PairOutlook]:
    groups: dict[str, list[Observed]] = {}
    for observed in scenarios:
        if observed.drafts_with_one_model and observed.offered_counts.size:
            groups.setdefault(observed.pair, []).append(observed)
    found = []
    for group in groups.values():
        model = group[0].drafting[0]["model"]
        kin = [observed for observed in among if observed.placement == group[0].placement]
        cost = costs_of([*group, *kin], model)
        if cost is not None:
            acceptance = CountedAcceptance(*_pooled(group))
            depth = acceptance.table().shape[0]
            max_nodes = int(group[0].placement["max_tree_nodes"])
            explained = explain_all(group, among)
            drag = drag_of(explained)
            outlooks = outlook(acceptance, cost, max_nodes, depth, range(1, MAX_BATCH_SIZE + 1), drag)
            names = tuple(observed.name for observed in group)
            found.append(PairOutlook(names, cost, outlooks, drag, _fastest(explained)))
    return found


def _fastest(explained: Sequence[Explanation]) -> tuple[Explanation, ...]:
    """Of every batch size the scenario with the largest measured speed-up."""
    best: dict[int, Explanation] = {}
    for item in sorted((item for item in explained if item.speedup), key=_measured_speedup):
        best[item.observed.batch_size] = item
    return tuple(best[batch_size] for batch_size in sorted(best))


def _measured_speedup(item: Explanation) -> float:
    return item.speedup.median if item.speedup else 0.0


def _fastest_words(fastest: Sequence[Explanation]) -> list[str]:
    """A line on what was served; a prediction must not hide that something else did better."""
    told = [
        f"at batch size {item.observed.batch_size} {item.observed.name}, {speedup_words(item.speedup)}"
        for item in fastest
        if item.speedup is not None
    ]
    return [f"Fastest of these as measured: {'; '.join(told)}."] if told else []


def _pooled(group: Sequence[Observed]) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(max(observed.offered_counts.shape[axis] for observed in group) for axis in (0, 1))
    offered_DK, accepted_DK = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for observed in group:
        D, K = observed.offered_counts.shape
        offered_DK[:D, :K] += observed.offered_counts
        accepted_DK[:D, :K] += observed.accepted_counts
    return offered_DK, accepted_DK


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _pair_data(pair: PairOutlook) -> dict[str, Any]:
    return {
        "scenarios": list(pair.scenarios),
        "recommendation": recommendation(pair.outlooks, pair.cost),
        "costs": pair.cost.to_dict(),
        "drag": pair.drag,
        "outlook": [outlook_data(item) for item in pair.outlooks],
        "fastest": [explanation_data(item) for item in pair.fastest],
    }
