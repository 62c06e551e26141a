"""How children are chosen from a draft's distribution: the contract that verifiers rely on, kept in one place.

Legend: R rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from treespec.ops.draws import Draws
from treespec.ops.sampling import SamplingRule, distributions
from treespec.tree import Contract


@dataclass(frozen=True)
class Leaves:
    """The nodes that get children now, one per row of logits."""

    items: Sequence[int]  # index of the request in the batch
    widths: Sequence[int]  # children wanted
    depths: Sequence[int]  # of the children
    rules: Sequence[SamplingRule]


@dataclass(frozen=True)
class Selected:
    """Per row the chosen tokens in the order of choice, drawn ones possibly repeated, and what they came from."""

    tokens: list[list[int]]
    q_RV: Tensor | None  # the distribution each row was drawn from; None if nothing was drawn


class Selection(Protocol):
    """A way to choose children; ``contract`` is what it promises."""

    contract: Contract

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        """Children of every row; fewer than its width only where no further token has any probability."""


class TopK:
    """The likeliest tokens, likeliest first (SpecInfer, section 3)."""

    contract = Contract.DETERMINISTIC

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:  # noqa: ARG002
        width = min(max(leaves.widths), logits_RV.shape[-1])
        # argmax and topk may break ties differently; a chain must take what greedy decoding takes.
        best_RK = logits_RV.argmax(dim=-1, keepdim=True) if width == 1 else logits_RV.topk(width, dim=-1).indices
        return Selected([row[:n] for row, n in zip(best_RK.tolist(), leaves.widths, strict=True)], None)


class IndependentDraws:
    """Draws with replacement (multi-step speculative sampling, SpecInfer, algorithm 2)."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        q_RV = distributions(logits_RV, leaves.rules)
        return Selected(_drawn(q_RV, leaves, draws, replace=True), q_RV)


class DrawsWithoutReplacement:
    """Each draw from what the earlier ones left (Sequoia, Chen et al. 2024)."""

    contract = Contract.WITHOUT_REPLACEMENT

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        q_RV = distributions(logits_RV, leaves.rules)
        return Selected(_drawn(q_RV.clone(), leaves, draws, replace=False), q_RV)


def _drawn(weights_RV: Tensor, leaves: Leaves, draws: Draws, *, replace: bool) -> list[list[int]]:
    tokens: list[list[int]] = [[] for _ in leaves.widths]
    for draw in range(max(leaves.widths)):
        rows = [row for row, width in enumerate(leaves.widths) if width > draw]
        if not replace and draw:
            left = weights_RV[rows].sum(dim=-1).tolist()
            rows = [row for row, mass in zip(rows, left, strict=True) if mass > 0]
            if not rows:
                break
        weights = weights_RV if len(rows) == len(weights_RV) else weights_RV[rows]
        chosen = draws.choose([leaves.items[row] for row in rows], weights, [leaves.depths[row] for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            tokens[row].append(token)
        if not replace:
            weights_RV[rows, chosen] = 0
    return tokens


SELECTIONS: dict[str, Selection] = {
    "top_k": TopK(),
    "iid": IndependentDraws(),
    "without_replacement": DrawsWithoutReplacement(),
}
