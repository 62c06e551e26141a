"""What the rules that weigh the target's p against the draft's q have in common.

Rows of the vocabulary's length are handed on as views and read as seldom as possible: they are what judging costs.

Legend: R requests that are judged now, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from treespec.tree import Contract, Proposals

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Owed:
    """What the target still owes at a node: p is ``weights_V`` / ``mass``."""

    weights_V: Tensor
    mass: float = 1.0


def known(value: T | None) -> T:
    """What was read before."""
    assert value is not None
    return value


def residuals(owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
    """(alpha p - q)+ per request, not normalised; mass 0 where q covers all of alpha p."""
    p_RV, q_RV = torch.stack([each.weights_V for each in owed]), torch.stack(list(q_V))
    scales = [alpha / each.mass for alpha, each in zip(alphas, owed, strict=True)]
    scales_R1 = torch.tensor(scales, dtype=p_RV.dtype).to(p_RV.device).unsqueeze(1)
    left_RV = p_RV.mul_(scales_R1).sub_(q_RV).clamp_(min=0)
    return [Owed(*row) for row in zip(left_RV, left_RV.sum(dim=-1).tolist(), strict=True)]


def after_rejection(owed: Owed, left: Owed) -> Owed:
    """The residual; where q covers p, p itself, because a rejection is then no more than rounding."""
    return left if left.mass > 0 else owed


def alpha_after(mass: float, alpha: float) -> float:
    """Probability that a path is accepted, once what follows it was rejected and left ``mass`` of its share alpha."""
    missing = mass + (1 - alpha)  # in this order: a path that is sure stays exactly sure
    return mass / missing if missing > 0 else alpha


def proposed_token(item: Proposals, row: int) -> int:
    """The token that a row proposes."""
    return int(item.tree.token_ids[item.nodes[row]])


def acceptance_ratios(
    items: Sequence[Proposals], rows: Sequence[int], owed: Sequence[Owed], q_V: Sequence[Tensor]
) -> list[float]:
    """Per request p / q of the token that its row proposes; may be above 1."""
    tokens = [proposed_token(item, row) for item, row in zip(items, rows, strict=True)]
    p_R = [each.weights_V[token] for each, token in zip(owed, tokens, strict=True)]
    q_R = [each_V[token] for each_V, token in zip(q_V, tokens, strict=True)]
    read = torch.stack(p_R + q_R).tolist()
    ratios = []
    for p, q, each in zip(read[: len(owed)], read[len(owed) :], owed, strict=True):
        assert q > 0, "a token without probability cannot have been drawn"
        ratios.append(p / each.mass / q)
    return ratios


def draft_distributions(items: Sequence[Proposals], rows: Sequence[int], owed: Sequence[Owed]) -> list[Tensor]:
    """Per request ``[V]``: what its row was drawn from, its elder siblings having been rejected; not to be changed.

    A deterministic row is a draw from the one-hot distribution of its token. Dtype and device are those of ``owed``.
    """
    like = owed[0].weights_V
    q_V = [_reported(item, row, like) for item, row in zip(items, rows, strict=True)]
    gone = [_drawn_before(item, row) for item, row in zip(items, rows, strict=True)]
    shrunk = [r for r, tokens in enumerate(gone) if tokens]
    if shrunk:
        left_RV = torch.stack([q_V[r] for r in shrunk])
        places = [(place, token) for place, r in enumerate(shrunk) for token in gone[r]]
        left_RV[[place for place, _ in places], [token for _, token in places]] = 0
        left_RV /= left_RV.sum(dim=-1, keepdim=True)
        for r, left_V in zip(shrunk, left_RV, strict=True):
            q_V[r] = left_V
    return q_V


def _reported(item: Proposals, row: int, like: Tensor) -> Tensor:
    if item.contracts[row] is Contract.DETERMINISTIC:
        one_hot_V = torch.zeros_like(like)
        one_hot_V[proposed_token(item, row)] = 1
        return one_hot_V
    assert item.q_QV is not None, "a drawn row reports what it was drawn from"
    return item.q_QV[item.q_rows[row]].to(like)


def _drawn_before(item: Proposals, row: int) -> list[int]:
    """Tokens that were out of the urn when a row was drawn without replacement."""
    if item.contracts[row] is not Contract.WITHOUT_REPLACEMENT:
        return []
    siblings = item.rows_below[item.tree.parents[item.nodes[row]]]
    return [proposed_token(item, elder) for elder in siblings if elder < row and item.q_rows[elder] == item.q_rows[row]]
