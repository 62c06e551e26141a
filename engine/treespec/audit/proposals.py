"""Whether a drafter draws its proposals from the distributions it reports.

Legend: V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treespec.audit.statistics import MIN_DRAWS, Counts, Fit, chi_square_fit
from treespec.draft.protocol import Drafter
from treespec.request import Request
from treespec.tree import Contract, Proposals

Context = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a draw was made: tokens from the root to the parent, and what was drawn below the parent before."""


@dataclass(frozen=True)
class _Draw:
    context: Context
    token_id: int
    proposals: Proposals
    row: int
    removed: tuple[int, ...]  # tokens that this draw could not be, having been drawn without replacement

    def promised(self) -> Tensor:
        """The distribution that the drafter says this token came from, float64 ``[V]``."""
        assert self.proposals.q_QV is not None, "a drawn proposal reports its distribution"
        q_V = self.proposals.q_QV[int(self.proposals.q_rows[self.row])].to("cpu", torch.float64, copy=True)
        q_V[list(self.removed)] = 0
        return q_V / q_V.sum()


def proposals_fit(drafter: Drafter, requests: Sequence[Request], max_depth: int, batch_size: int) -> Fit:
    """Let the drafter propose for many requests, equal but for their chance, and test every draw.

    A draw is judged in its context, the draws before it included: draws that repeat each other's noise fail too.
    The proposals are made twice, which chance allows, because only contexts that come often are worth their memory.
    """
    times = Counter(draw.context for draw in _draws(drafter, requests, max_depth, batch_size))
    counts: dict[Context, Counts] = {}
    for draw in _draws(drafter, requests, max_depth, batch_size):
        if times[draw.context] >= MIN_DRAWS:
            promised_V = draw.promised()
            if draw.context not in counts:
                counts[draw.context] = Counts(torch.zeros_like(promised_V), torch.zeros_like(promised_V))
            counts[draw.context].observed_V[draw.token_id] += 1
            counts[draw.context].expected_V.add_(promised_V)
    return chi_square_fit(counts.values())


def _draws(drafter: Drafter, requests: Sequence[Request], max_depth: int, batch_size: int) -> Iterator[_Draw]:
    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        proposed = drafter.propose(batch, [max_depth] * len(batch))
        for request in batch:
            drafter.forget(request)
        for proposals in proposed:
            yield from _draws_of(proposals)


def _draws_of(proposals: Proposals) -> Iterator[_Draw]:
    tree = proposals.tree
    for parent, rows in enumerate(proposals.rows_below):
        path = tuple(tree.path_tokens(parent))
        earlier: list[tuple[int, int]] = []  # token, row of q
        for row in rows:
            token_id = int(tree.token_ids[proposals.nodes[row]])
            contract, q_row = proposals.contracts[row], int(proposals.q_rows[row])
            if contract is not Contract.DETERMINISTIC:
                is_removed = contract is Contract.WITHOUT_REPLACEMENT
                removed = tuple(token for token, source in earlier if is_removed and source == q_row)
                context = path, tuple(token for token, _ in earlier)
                yield _Draw(context, token_id, proposals, row, removed)
            earlier.append((token_id, q_row))
