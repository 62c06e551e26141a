"""Several drafters at once: their trees are merged into one, which the target verifies in one pass.

A portfolio's proposals have the contracts of all its members, and a verifier must be lossless for each.

Legend: Q draft distributions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treespec.draft.protocol import Drafter
from treespec.request import Request
from treespec.tree import Proposals
from treespec.tree.merge import Merged, merge


class PortfolioDrafter:
    """Merges what its drafters propose and tells each of them what was accepted of its own tree.

    Nothing is ever cut off to fit ``max_nodes`` (root not counted): what is left would depend on what was drawn.
    The configuration is to see to it that the largest trees of all members together fit.
    """

    def __init__(self, drafters: Sequence[Drafter], max_nodes: int | None = None) -> None:
        self._drafters = tuple(drafters)
        self._max_nodes = max_nodes
        self._proposed: dict[int, Merged] = {}

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        by_drafter = [drafter.propose(requests, max_depths) for drafter in self._drafters]
        proposals = []
        for request, *sources in zip(requests, *by_drafter, strict=True):
            merged = merge(sources, _joined(sources))
            assert self._max_nodes is None or len(merged.proposals.tree) - 1 <= self._max_nodes, "validated"
            self._proposed[request.request_id] = merged
            proposals.append(merged.proposals)
        return proposals

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        merged = [self._proposed.pop(request.request_id) for request in requests]
        for place, drafter in enumerate(self._drafters):
            own = [item.own_path(place, path) for item, path in zip(merged, accepted, strict=True)]
            drafter.observe(requests, own)

    def forget(self, request: Request) -> None:
        self._proposed.pop(request.request_id, None)
        for drafter in self._drafters:
            drafter.forget(request)


def _joined(sources: Sequence[Proposals]) -> Tensor | None:
    """The distributions of all sources one after the other."""
    parts = [source.q_QV for source in sources if source.q_QV is not None]
    return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else None
