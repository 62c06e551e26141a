"""Block verification (Sun et al. 2024, arXiv 2403.10444): a chain is accepted as far as its sequence probability goes.

Legend: R requests that are judged now, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

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
class _Block:
    """One request's chain: row i proposes the node at level i + 1, the root stands at level 0."""

    item: int
    proposals: Proposals
    first_row: int  # of the target's rows
    rows: list[int]
    weights: list[float] = field(default_factory=lambda: [1.0])  # per level: min(1, product of p/q on the way)
    owed: list[Owed] = field(default_factory=list)  # per level that was read: the target's distribution
    q_V: list[Tensor] = field(default_factory=list)  # and what the token after it was drawn from
    length: int = 0  # of the longest prefix that may still be accepted
    next_owed: Owed | None = None  # what the next token is drawn from; None: the target's distribution there

    @cached_property
    def nodes(self) -> list[int]:
        """By level, the root first."""
        return [0, *self.proposals.nodes[self.rows].tolist()]


class BlockVerifier:
    """Accepts the longest prefix whose own coin allows it; a coin looks at the whole prefix, not at its last token."""

    contracts = frozenset(Contract)
    chains_only = True
    greedy_only = False

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        if not proposals:
            return []
        starts = first_rows(proposals)
        blocks = [
            _Block(i, item, start, _chain(item)) for i, (item, start) in enumerate(zip(proposals, starts, strict=True))
        ]
        _weigh(blocks, target)
        judging = blocks
        while judging:
            judging = _shortened(judging, self._chances(judging), draws)
        weights_RV = torch.stack([owed.weights_V for owed in _next(blocks, target)])
        tokens = draws.choose(range(len(blocks)), weights_RV, [block.length + 1 for block in blocks])
        return [
            VerifyResult(tuple(block.nodes[1 : block.length + 1]), token)
            for block, token in zip(blocks, tokens, strict=True)
        ]

    def _chances(self, blocks: Sequence[_Block]) -> list[float]:
        """Per block: probability that its longest prefix is accepted, the longer ones having been rejected."""
        chances = [block.weights[block.length] for block in blocks]
        inner = [r for r, block in enumerate(blocks) if block.length < len(block.owed)]
        if inner:
            owed = [blocks[r].owed[blocks[r].length] for r in inner]
            q_V = [blocks[r].q_V[blocks[r].length] for r in inner]
            left = self.residuals(owed, [chances[r] for r in inner], q_V)
            for r, before, residual in zip(inner, owed, left, strict=True):
                blocks[r].next_owed = after_rejection(before, residual)
                chances[r] = alpha_after(residual.mass, chances[r])
        return chances

    def residuals(self, owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
        """What the target still owes after a rejection."""
        return residuals(owed, alphas, q_V)


def _chain(item: Proposals) -> list[int]:
    """The rows from the root down."""
    assert item.is_chain, "block verification judges chains"
    rows, node = [], 0
    while below := item.rows_below[node]:
        rows.append(below[0])
        node = int(item.nodes[below[0]])
    return rows


def _weigh(blocks: Sequence[_Block], target: TargetRows) -> None:
    """Read the chains level by level, as far as they can be accepted."""
    reading = [block for block in blocks if block.rows]
    while reading:
        items, rows = [block.proposals for block in reading], [block.rows[block.length] for block in reading]
        p_RV = target.probabilities([block.first_row + block.nodes[block.length] for block in reading])
        owed = [Owed(p_V) for p_V in p_RV]
        q_V = draft_distributions(items, rows, owed)
        ratios = acceptance_ratios(items, rows, owed, q_V)
        for block, each, each_V, ratio in zip(reading, owed, q_V, ratios, strict=True):
            block.owed.append(each)
            block.q_V.append(each_V)
            block.weights.append(min(1.0, block.weights[-1] * ratio))
            block.length += 1
        reading = [block for block in reading if block.length < len(block.rows) and block.weights[-1] > 0]


def _shortened(blocks: Sequence[_Block], chances: Sequence[float], draws: Draws) -> list[_Block]:
    """Toss a coin for every prefix, the root needing none; those that lost it, one token shorter."""
    tossed = [(block, chance) for block, chance in zip(blocks, chances, strict=True) if block.length]
    if not tossed:
        return []
    chances_R = torch.tensor([chance for _, chance in tossed], dtype=torch.float64)
    coins = draws.accept([block.item for block, _ in tossed], chances_R)
    lost = [block for (block, _), is_accepted in zip(tossed, coins, strict=True) if not is_accepted]
    for block in lost:
        block.length -= 1
    return lost


def _next(blocks: Sequence[_Block], target: TargetRows) -> list[Owed]:
    """What the next tokens are drawn from."""
    whole = [block for block in blocks if block.next_owed is None]
    if whole:
        p_RV = target.probabilities([block.first_row + block.nodes[block.length] for block in whole])
        for block, p_V in zip(whole, p_RV, strict=True):
            block.next_owed = Owed(p_V)
    return [known(block.next_owed) for block in blocks]
