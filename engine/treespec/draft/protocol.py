"""What a drafter is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from treespec.request import Request
from treespec.tree import Proposals


class Drafter(Protocol):
    """Proposes trees for a batch of requests; keeps what it needs per request until ``forget``."""

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        """One tree per request, rooted in its last token and no deeper than its entry of ``max_depths``."""

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        """The nodes of the last proposals that were accepted, root excluded, for requests that go on."""

    def forget(self, request: Request) -> None:
        """A request ended; drop its state."""


class NoDrafter:
    """Proposes nothing: incremental decoding."""

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:  # noqa: ARG002
        return [Proposals.none(request.last_token_id) for request in requests]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        pass

    def forget(self, request: Request) -> None:
        pass
