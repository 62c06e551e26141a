"""Drafting by one small speculative model (SpecInfer, section 3): a tree grown level by level, one forward per level.

Legend: R rows of logits, V vocabulary, Q draft distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from treespec.draft.growth import Growth, GrowthRule
from treespec.draft.selection import Leaves, Selection, TopK
from treespec.kvcache.allocator import Lease
from treespec.ops.draws import DraftDraws
from treespec.request import Request
from treespec.runner import ForwardRow, ModelRunner
from treespec.tree import Proposals

CATCH_UP_CHUNK = 256
CATCH_UP_LAG = 4  # a request further behind than this is caught up in a pass of its own


@dataclass
class _DraftState:
    """The draft's side of one request: its region, what of it is context, and the slots of the tree in flight."""

    region: int
    num_cached: int = 0
    slots: dict[int, int] = field(default_factory=dict)  # node of the proposed tree -> speculative slot


@dataclass
class _Growing:
    """One request's tree while it grows, with the keys and values the draft has of it."""

    item: int  # index in the batch
    request: Request
    state: _DraftState
    tree: Growth
    seen: dict[int, list[int]] = field(default_factory=lambda: {0: []})  # per fed node: slots it sees, its own last
    q: list[Tensor] = field(default_factory=list)
    num_q: int = 0
    num_forwarded: int = 0
    lease: Lease | None = None

    def proposals(self) -> Proposals:
        """The grown tree; the draft's state keeps the slots of the nodes that were fed."""
        proposals = self.tree.build(torch.cat(self.q) if self.q else None)
        fed = {node: self.seen.get(self.tree.origin(node)) for node in range(1, len(proposals.tree))}
        self.state.slots = {node: slots[-1] for node, slots in fed.items() if slots}
        return proposals


class SsmDrafter:
    """Drafts trees with a draft model of the target's vocabulary; ``rule`` shapes them, ``selection`` fills them."""

    def __init__(
        self, runner: ModelRunner, rule: GrowthRule, selection: Selection | None = None, source: int = 0
    ) -> None:
        self._runner = runner
        self._rule = rule
        self._selection = selection or TopK()
        self._source = source
        self._states: dict[int, _DraftState] = {}
        self._proposed: dict[int, Proposals] = {}

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        begin = self._rule.begin(len(requests))
        trees = [
            _Growing(item, request, self._state(request), begin(request.last_token_id, max_depth))
            for item, (request, max_depth) in enumerate(zip(requests, max_depths, strict=True))
        ]
        draws = DraftDraws([r.chance for r in requests], [r.num_tokens - 1 for r in requests], self._source)
        growing, fed_context = [tree for tree in trees if tree.tree.frontier], False
        while growing:
            logits_RV = self._run_level(growing) if fed_context else self._run_context(growing)
            fed_context = True
            self._expand(growing, logits_RV, draws)
            growing = [tree for tree in growing if tree.tree.frontier]
        proposals = [tree.proposals() for tree in trees]
        self._proposed = {request.request_id: item for request, item in zip(requests, proposals, strict=True)}
        return proposals

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        paths = []
        for request, nodes in zip(requests, accepted, strict=True):
            state = self._states[request.request_id]
            # The draft never ran the leaves, so an accepted leaf is fed again as context.
            kept = [state.slots[node] for node in nodes if node in state.slots]
            paths.append((state.region, kept))
            state.num_cached += len(kept)
            state.slots = {}
        self._runner.commit(paths)
        self._rule.observe([self._proposed[request.request_id] for request in requests], accepted)

    def forget(self, request: Request) -> None:
        self._proposed.pop(request.request_id, None)
        state = self._states.pop(request.request_id, None)
        if state is not None:
            self._runner.commit([(state.region, [])])
            self._runner.allocator.free(state.region)

    def _state(self, request: Request) -> _DraftState:
        if request.request_id not in self._states:
            self._states[request.request_id] = _DraftState(self._runner.allocator.admit())
        return self._states[request.request_id]

    def _run_context(self, growing: Sequence[_Growing]) -> Tensor:
        """Make every token up to and including the root context; ``[R, V]``, a row per tree."""
        for tree in growing:
            self._catch_up(tree.request, tree.state)
        pending = [tree.request.tokens_from(tree.state.num_cached) for tree in growing]
        return self._feed([tree.state for tree in growing], pending, num_logits=1)

    def _catch_up(self, request: Request, state: _DraftState) -> None:
        """Feed a prompt, or what was decoded without this draft, chunk by chunk, all but the root."""
        if request.num_tokens - state.num_cached <= CATCH_UP_LAG:
            return
        while chunk := request.tokens_from(state.num_cached)[:-1][:CATCH_UP_CHUNK]:
            self._feed([state], [chunk], num_logits=0)

    def _feed(self, states: Sequence[_DraftState], pending: Sequence[Sequence[int]], num_logits: int) -> Tensor:
        rows = [
            ForwardRow(
                lease=self._runner.allocator.lease(state.region, len(tokens)),
                token_ids=np.asarray(tokens, dtype=np.int64),
                positions=np.arange(state.num_cached, state.num_cached + len(tokens), dtype=np.int64),
                visible=np.tri(len(tokens), dtype=bool),
                num_logits=num_logits,
            )
            for state, tokens in zip(states, pending, strict=True)
        ]
        result = self._runner.result(self._runner.submit(rows))
        self._runner.commit([(state.region, range(len(tokens))) for state, tokens in zip(states, pending, strict=True)])
        for state, tokens in zip(states, pending, strict=True):
            state.num_cached += len(tokens)
        return result.logits_RV

    def _run_level(self, growing: Sequence[_Growing]) -> Tensor:
        """Run the frontier of every tree; one row of logits per node, request after request."""
        rows = [self._level_row(tree) for tree in growing]
        return self._runner.result(self._runner.submit(rows)).logits_RV

    def _level_row(self, growing: _Growing) -> ForwardRow:
        tree, n, first = growing.tree, len(growing.tree.frontier), growing.num_forwarded
        growing.lease = self._runner.allocator.lease(growing.state.region, n, parent=growing.lease)
        visible = np.zeros((n, first + n), dtype=bool)
        for row, node in enumerate(tree.frontier):
            growing.seen[node] = [*growing.seen[tree.parent(node)], first + row]
            visible[row, growing.seen[node]] = True
        growing.num_forwarded += n
        return ForwardRow(
            lease=growing.lease,
            token_ids=np.asarray([tree.token_id(node) for node in tree.frontier], dtype=np.int64),
            positions=np.full(n, growing.state.num_cached + tree.depth - 1, dtype=np.int64),
            visible=visible,
            num_logits=n,
        )

    def _expand(self, growing: Sequence[_Growing], logits_RV: Tensor, draws: DraftDraws) -> None:
        counts = [len(tree.tree.frontier) for tree in growing]
        rows = [tree for tree, n in zip(growing, counts, strict=True) for _ in range(n)]
        leaves = Leaves(
            items=[tree.item for tree in rows],
            widths=[width for tree in growing for width in tree.tree.widths()],
            depths=[tree.tree.depth + 1 for tree in rows],
            rules=[tree.request.params.sampling for tree in rows],
        )
        selected = self._selection.select(logits_RV, leaves, draws)
        start = 0
        for tree, n in zip(growing, counts, strict=True):
            part = slice(start, start + n)
            q_rows = [-1] * n
            if selected.q_RV is not None:
                tree.q.append(selected.q_RV[part])
                q_rows = list(range(tree.num_q, tree.num_q + n))
                tree.num_q += n
            scores = None
            if tree.tree.needs_scores:
                scores = _scores(logits_RV[part], selected.tokens[part])
            tree.tree.expand(selected.tokens[part], self._selection.contract, q_rows, scores)
            start += n


def _scores(logits_RV: Tensor, tokens: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-probability of every chosen token at temperature 1."""
    log_q_RV = logits_RV.float().log_softmax(dim=-1)
    return [log_q_V[list(row)].tolist() for log_q_V, row in zip(log_q_RV, tokens, strict=True)]
