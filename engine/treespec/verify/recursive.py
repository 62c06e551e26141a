"""Recursive rejection: children are tried in turn, each rejection leaving a residual of the target's distribution.

On a chain it is Leviathan et al. 2023 (algorithm 1), with independent children SpecInfer's multi-step speculative
sampling (algorithm 2), with children drawn without replacement Sequoia (Chen et al. 2024, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals
from treespec.verify.protocol import VerifyResult
from treespec.verify.rejection import Owed, acceptance_ratios, after_rejection, draft_distributions, residuals
from treespec.verify.sampler_match import first_rows


@dataclass
class _Walk:
    """One request's way down its tree."""

    item: int
    proposals: Proposals
    owed: Owed  # at the node where it stands
    untried: list[int]  # rows below that node
    path: list[int] = field(default_factory=list)  # accepted nodes, root excluded

    def accept(self) -> int:
        """Step to the node of the row that was tried; returns that node."""
        node = int(self.proposals.nodes[self.untried[0]])
        self.path.append(node)
        self.untried = list(self.proposals.rows_below[node])
        return node


class RecursiveRejectionVerifier:
    """Accepts a child with probability p/q, else takes (p - q)+ for p and tries the next; below the last, draws from p.

    Rows are tried in the order in which they were drawn; the paper picks at random, and both are lossless. All
    requests of a batch are judged in lockstep, one row each per round.
    """

    greedy_only = False

    def __init__(self, contracts: frozenset[Contract] = frozenset(Contract), *, chains_only: bool = False) -> None:
        self.contracts = contracts
        self.chains_only = chains_only

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        if not proposals:
            return []
        starts = first_rows(proposals)
        walks = [
            _Walk(i, item, Owed(p_V), list(item.rows_below[0]))
            for i, (item, p_V) in enumerate(zip(proposals, target.probabilities(starts), strict=True))
        ]
        while trying := [walk for walk in walks if walk.untried]:
            accepted = self._try_next_row(trying, draws)
            if accepted:
                p_RV = target.probabilities([starts[walk.item] + walk.accept() for walk in accepted])
                for walk, p_V in zip(accepted, p_RV, strict=True):
                    walk.owed = Owed(p_V)
        weights_RV = torch.stack([walk.owed.weights_V for walk in walks])
        tokens = draws.choose(range(len(walks)), weights_RV, [len(walk.path) + 1 for walk in walks])
        return [VerifyResult(tuple(walk.path), token) for walk, token in zip(walks, tokens, strict=True)]

    def _try_next_row(self, walks: Sequence[_Walk], draws: Draws) -> list[_Walk]:
        """Judge one row of every request; returns those that accept it. The others owe the residual."""
        items, rows = [walk.proposals for walk in walks], [walk.untried[0] for walk in walks]
        owed = [walk.owed for walk in walks]
        q_V = draft_distributions(items, rows, owed)
        ratios_R = torch.tensor(acceptance_ratios(items, rows, owed, q_V), dtype=torch.float64)
        coins = draws.accept([walk.item for walk in walks], ratios_R)
        rejected = [r for r, is_accepted in enumerate(coins) if not is_accepted]
        if rejected:
            left = self.residuals([owed[r] for r in rejected], [1.0] * len(rejected), [q_V[r] for r in rejected])
            for r, residual in zip(rejected, left, strict=True):
                walks[r].owed = after_rejection(owed[r], residual)
                walks[r].untried.pop(0)
        return [walk for walk, is_accepted in zip(walks, coins, strict=True) if is_accepted]

    def residuals(self, owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
        """What the target still owes after a rejection."""
        return residuals(owed, alphas, q_V)
