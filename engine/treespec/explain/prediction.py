"""What speculation should bring, from acceptance and cost alone: the automatic trees' own model. Torch-free.

Legend: B requests of a step, N nodes of a tree, root included, D depths, K ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from treespec.draft.auto_policy import MARGIN, Candidates
from treespec.metrics.acceptance import RankAcceptance
from treespec.metrics.cost import CostModel, TimeCurve
from treespec.tree import Topology

MAX_BATCH_SIZE = 16  # the paper's largest
MAX_DEPTH = 16
NO_TIME = TimeCurve((1,), (1e-9,))


class Obstacle(StrEnum):
    """What keeps speculation from paying."""

    DRAFT = "the draft is too dear"
    VERIFICATION = "verification is too dear"
    ACCEPTANCE = "acceptance is too low"


class CountedAcceptance(RankAcceptance):
    """Acceptance by depth and rank from the counts of a whole run; what was never offered is no part of it.

    Exact where every step offered the same number of proposals; where it varied, as if that said nothing of the tokens.
    """

    def __init__(self, offered_DK: np.ndarray, accepted_DK: np.ndarray) -> None:
        super().__init__(*offered_DK.shape)
        rate_DK = accepted_DK / np.maximum(offered_DK, 1)
        better_DK = np.cumsum(rate_DK, axis=1) - rate_DK
        # A rank was tried where every better one had failed.
        self._tried_DK += np.maximum(offered_DK * (1 - better_DK), accepted_DK)
        self._accepted_DK += accepted_DK


@dataclass(frozen=True)
class Outlook:
    """The best speculation at a batch size, by the model."""

    batch_size: int
    num_nodes: int  # of a tree, root included
    depth: int
    is_chain: bool
    tokens_per_step: float
    step_ratio: float  # time of its step over that of an incremental one
    obstacle: Obstacle | None  # None where it pays

    @property
    def speedup(self) -> float:
        """Over incremental decoding."""
        return self.tokens_per_step / self.step_ratio

    @property
    def pays(self) -> bool:
        """Whether the gain is worth switching speculation on, by the same margin as the automatic trees'."""
        return self.obstacle is None

    @property
    def break_even_acceptance(self) -> float:
        """Acceptance per level from which this tree would pay; more than 1: never."""
        return acceptance_per_level(self.step_ratio, self.depth)


def outlook(
    acceptance: RankAcceptance,
    cost: CostModel,
    max_nodes: int,
    max_depth: int,
    batch_sizes: Sequence[int],
    drag: float = 1.0,
) -> tuple[Outlook, ...]:
    """The best trees for several batch sizes; a tree is one of the best-first ones of every size and depth.

    ``drag``: real over modelled time of speculating steps where that of incremental ones is 1.
    """
    candidates = Candidates(acceptance, max_nodes, max_depth)
    return tuple(_outlook(candidates, cost, batch_size, drag) for batch_size in batch_sizes)


def _outlook(candidates: Candidates, cost: CostModel, batch_size: int, drag: float) -> Outlook:
    plain_ms = _plain_ms(cost, batch_size)
    best = candidates.best(cost, batch_size)
    ratio = best.model_ms / plain_ms * drag
    pays = best.expected_tokens / ratio > 1 + MARGIN
    return Outlook(
        batch_size=batch_size,
        num_nodes=len(best.topology),
        depth=best.topology.depth,
        is_chain=best.topology.is_chain,
        tokens_per_step=best.expected_tokens,
        step_ratio=ratio,
        obstacle=None if pays else _obstacle(candidates, cost, batch_size, drag),
    )


def _obstacle(candidates: Candidates, cost: CostModel, batch_size: int, drag: float) -> Obstacle:
    """What, were it free, would let speculation pay, and most; acceptance, if neither would."""
    plain_ms = _plain_ms(cost, batch_size)
    flat = TimeCurve((1,), (float(cost.target.at(batch_size)),))
    gains = {}
    for obstacle, ideal in (
        (Obstacle.DRAFT, CostModel(cost.target, NO_TIME, cost.overhead_ms)),
        (Obstacle.VERIFICATION, CostModel(flat, cost.draft_level, cost.overhead_ms)),
    ):
        best = candidates.best(ideal, batch_size)
        gains[obstacle] = best.expected_tokens * plain_ms / (best.model_ms * drag)
    largest = max(gains, key=lambda obstacle: gains[obstacle])
    return largest if gains[largest] > 1 + MARGIN else Obstacle.ACCEPTANCE


def predicted_tokens(acceptance_DK: np.ndarray, topology: Topology) -> float:
    """Expected tokens per step of a tree, acceptance being a matter of depth and rank alone."""
    values = [1.0] * len(topology)
    for node, children in enumerate(topology.children):
        depth = int(topology.depths[node])
        for rank, child in enumerate(children):
            is_known = depth < acceptance_DK.shape[0] and rank < acceptance_DK.shape[1]
            values[child] = values[node] * float(acceptance_DK[depth, rank]) if is_known else 0.0
    return sum(values)


def step_ratio(cost: CostModel, batch_size: int, topology: Topology) -> float:
    """Time of a step with such trees over that of an incremental one."""
    levels = np.zeros(max(1, topology.depth), dtype=np.int64)
    for node, children in enumerate(topology.children):
        if children:
            levels[topology.depths[node]] += 1
    return float(cost.step_ms(batch_size, len(topology), levels)) / _plain_ms(cost, batch_size)


def acceptance_per_level(tokens: float, depth: int) -> float:
    """The acceptance a, alike at all levels, with which a tree of this depth emits 1 + a + ... + a^depth ``tokens``.

    0 for one token or fewer; above 1 where even full acceptance would not do.
    """
    low, high = 0.0, max(1.0, tokens)  # depth >= 1, so that a = tokens emits more than enough
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**level for level in range(depth + 1)) < tokens else (low, middle)
    return high if tokens > 1 else 0.0


def _plain_ms(cost: CostModel, batch_size: int) -> float:
    return float(cost.step_ms(batch_size, 1, [0]))
