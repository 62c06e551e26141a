"""Expansion-based drafting by one small speculative model (SpecInfer, section 3).

At draft step i every leaf gets the k_i likeliest next tokens as children; the vector <k_1, ..., k_m> is data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from treespec.kvcache.allocator import Lease
from treespec.request import Request
from treespec.runner import ForwardRow, ModelRunner
from treespec.tree import Proposals, TreeBuilder

CATCH_UP_CHUNK = 256
CATCH_UP_LAG = 4  # a request further behind than this is caught up in a pass of its own


@dataclass
class _DraftState:
    """The draft's side of one request: its region, what of it is context, and the tree in flight."""

    region: int
    num_cached: int = 0
    num_forwarded: int = 0  # nodes of the last tree, root excluded, whose keys and values the draft has


@dataclass
class _Growth:
    """One request's tree while it grows."""

    request: Request
    state: _DraftState
    max_depth: int
    builder: TreeBuilder
    leaves: list[int] = field(default_factory=lambda: [0])
    seen: list[list[int]] = field(default_factory=lambda: [[]])  # per node: speculative slots it sees, its own last
    lease: Lease | None = None

    def add_children(self, parent: int, token_ids: Sequence[int]) -> list[int]:
        """New leaves below ``parent``; node i of the tree has speculative slot i - 1."""
        children = [self.builder.add(parent, token_id) for token_id in token_ids]
        self.seen.extend([*self.seen[parent], child - 1] for child in children)
        return children


class SsmDrafter:
    """Drafts trees of a fixed expansion with a draft model of the target's vocabulary."""

    def __init__(self, runner: ModelRunner, expansion: Sequence[int]) -> None:
        self._runner = runner
        self._expansion = tuple(expansion)
        self._states: dict[int, _DraftState] = {}

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        growths = [
            _Growth(request, self._state(request), max_depth, TreeBuilder(request.last_token_id))
            for request, max_depth in zip(requests, max_depths, strict=True)
        ]
        growing = growths
        for step, width in enumerate(self._expansion):
            growing = [growth for growth in growing if growth.max_depth > step]
            if not growing:
                break
            logits_RV = self._run_level(growing) if step else self._run_context(growing)
            self._expand(growing, logits_RV, width)
        return [Proposals.deterministic(growth.builder.build()) for growth in growths]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        paths = []
        for request, nodes in zip(requests, accepted, strict=True):
            state = self._states[request.request_id]
            # The draft never ran the last level, so an accepted leaf is fed again as context.
            kept = [node - 1 for node in nodes if node <= state.num_forwarded]
            paths.append((state.region, kept))
            state.num_cached += len(kept)
            state.num_forwarded = 0
        self._runner.commit(paths)

    def forget(self, request: Request) -> None:
        state = self._states.pop(request.request_id, None)
        if state is not None:
            self._runner.commit([(state.region, [])])
            self._runner.allocator.free(state.region)

    def _state(self, request: Request) -> _DraftState:
        if request.request_id not in self._states:
            self._states[request.request_id] = _DraftState(self._runner.allocator.admit())
        return self._states[request.request_id]

    def _run_context(self, growing: Sequence[_Growth]) -> Tensor:
        """Make every token up to and including the root context; ``[B, V]``, the distributions of level 1."""
        for growth in growing:
            self._catch_up(growth)
        pending = [growth.request.tokens_from(growth.state.num_cached) for growth in growing]
        return self._feed([growth.state for growth in growing], pending, num_logits=1)

    def _catch_up(self, growth: _Growth) -> None:
        """Feed a prompt chunk by chunk until the root alone is missing."""
        state, request = growth.state, growth.request
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

    def _run_level(self, growing: Sequence[_Growth]) -> Tensor:
        """Run the newest level of every tree; one row of logits per leaf, request after request."""
        rows = [self._level_row(growth) for growth in growing]
        return self._runner.result(self._runner.submit(rows)).logits_RV

    def _level_row(self, growth: _Growth) -> ForwardRow:
        state, n = growth.state, len(growth.leaves)
        growth.lease = self._runner.allocator.lease(state.region, n, parent=growth.lease)
        visible = np.zeros((n, state.num_forwarded + n), dtype=bool)
        for row, node in enumerate(growth.leaves):
            visible[row, growth.seen[node]] = True
        state.num_forwarded += n
        depth = len(growth.seen[growth.leaves[0]])
        return ForwardRow(
            lease=growth.lease,
            token_ids=np.asarray([growth.builder.token_id(node) for node in growth.leaves], dtype=np.int64),
            positions=np.full(n, state.num_cached + depth - 1, dtype=np.int64),
            visible=visible,
            num_logits=n,
        )

    @staticmethod
    def _expand(growing: Sequence[_Growth], logits_RV: Tensor, width: int) -> None:
        rows = iter(top_k(logits_RV, width))
        for growth in growing:
            growth.leaves = [child for leaf in growth.leaves for child in growth.add_children(leaf, next(rows))]


def top_k(logits_RV: Tensor, width: int) -> list[list[int]]:
    """The ``width`` likeliest tokens of every row, likeliest first."""
    if width == 1:
        return [[token] for token in logits_RV.argmax(dim=-1).tolist()]
    tokens: list[list[int]] = torch.topk(logits_RV, width, dim=-1).indices.tolist()
    return tokens
