"""Traversal verification (Weng et al. 2025, arXiv 2505.12398): leaves before their parents, by sequence probability.

A leaf is accepted with its whole path, so a child can save a parent that a top-down rule would have rejected.

Legend: R requests that are judged now, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals
from treespec.verify.protocol import VerifyResult
from treespec.verify.rejection import (
    Owed,
    acceptance_ratios,
    after_rejection,
    alpha_after,
    draft_distributions,
    known,
    residuals,
)
from treespec.verify.sampler_match import first_rows


@dataclass
class _Frame:
    """A node on the path that is being judged."""

    node: int
    alpha: float  # probability with which the path down to here is still to be accepted
    untried: list[int]  # rows below that were not judged yet; the first one is being judged
    owed: Owed | None = None  # what the target still owes below; read when it is first needed
    q_V: Tensor | None = None  # what the row that is being judged was drawn from

    @property
    def is_leaf(self) -> bool:
        # Below alpha 0 nothing can be accepted: the subtree is rejected as one.
        return not self.untried or self.alpha == 0


class _Walk:
    """One request's way through its tree, depth first."""

    def __init__(self, item: int, proposals: Proposals, first_row: int) -> None:
        self.item = item
        self.proposals = proposals
        self.path = [_Frame(0, 1.0, list(proposals.rows_below[0]))]
        self._first_row = first_row

    @property
    def top(self) -> _Frame:
        """The deepest node of the path."""
        return self.path[-1]

    @property
    def target_row(self) -> int:
        """The target's row at the deepest node."""
        return self._first_row + self.top.node

    def descend(self, ratio: float) -> None:
        """Step to the next child. A token drawn again has nothing left and gets alpha 0: its subtree was judged."""
        node = int(self.proposals.nodes[self.top.untried[0]])
        alpha = min(1.0, self.top.alpha * ratio)
        self.path.append(_Frame(node, alpha, list(self.proposals.rows_below[node])))


class TraversalVerifier:
    """Judges the leaves depth first; a node whose children were all rejected becomes a leaf. The root is accepted."""

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = False

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        if not proposals:
            return []
        starts = first_rows(proposals)
        walks = [_Walk(i, item, start) for i, (item, start) in enumerate(zip(proposals, starts, strict=True))]
        judging = walks
        while judging:
            _descend(judging, target)
            judging = _rejected(judging, draws)
            if judging:
                self._discard(judging)
        weights_RV = torch.stack([owed.weights_V for owed in _owed(walks, target)])
        tokens = draws.choose(range(len(walks)), weights_RV, [len(walk.path) for walk in walks])
        return [
            VerifyResult(tuple(frame.node for frame in walk.path[1:]), token)
            for walk, token in zip(walks, tokens, strict=True)
        ]

    def _discard(self, walks: Sequence[_Walk]) -> None:
        """Take the rejected leaf off every path; its parent owes what the leaf did not cover."""
        for walk in walks:
            walk.path.pop()
        frames = [walk.top for walk in walks]
        owed = [known(frame.owed) for frame in frames]
        left = self.residuals(owed, [frame.alpha for frame in frames], [known(frame.q_V) for frame in frames])
        for frame, before, residual in zip(frames, owed, left, strict=True):
            frame.untried.pop(0)
            frame.owed = after_rejection(before, residual)
            frame.alpha = alpha_after(residual.mass, frame.alpha)

    def residuals(self, owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
        """What the target still owes after a rejection."""
        return residuals(owed, alphas, q_V)


def _descend(walks: Sequence[_Walk], target: TargetRows) -> None:
    """Follow the next child of every path until a leaf."""
    while inner := [walk for walk in walks if not walk.top.is_leaf]:
        items, rows = [walk.proposals for walk in inner], [walk.top.untried[0] for walk in inner]
        owed = _owed(inner, target)
        q_V = draft_distributions(items, rows, owed)
        for walk, each_V, ratio in zip(inner, q_V, acceptance_ratios(items, rows, owed, q_V), strict=True):
            walk.top.q_V = each_V
            walk.descend(ratio)


def _rejected(walks: Sequence[_Walk], draws: Draws) -> list[_Walk]:
    """Toss a coin for every leaf; the root needs none."""
    tossed = [walk for walk in walks if len(walk.path) > 1]
    if not tossed:
        return []
    alphas_R = torch.tensor([walk.top.alpha for walk in tossed], dtype=torch.float64)
    coins = draws.accept([walk.item for walk in tossed], alphas_R)
    return [walk for walk, is_accepted in zip(tossed, coins, strict=True) if not is_accepted]


def _owed(walks: Sequence[_Walk], target: TargetRows) -> list[Owed]:
    """What the target owes at the deepest nodes: its distribution, less what their rejected children covered."""
    fresh = [walk for walk in walks if walk.top.owed is None]
    if fresh:
        for walk, p_V in zip(fresh, target.probabilities([walk.target_row for walk in fresh]), strict=True):
            walk.top.owed = Owed(p_V)
    return [known(walk.top.owed) for walk in walks]
