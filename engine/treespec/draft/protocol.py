"""What a drafter is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from treespec.request import Request
from treespec.tree import Contract, Proposals

if TYPE_CHECKING:
    from treespec.runner import ModelRunner


class Drafter(Protocol):
    """Proposes trees for a batch of requests; keeps what it needs per request until ``forget``."""

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        """One tree per request, rooted in its last token and no deeper than its entry of ``max_depths``."""

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        """The nodes of the last proposals that were accepted, root excluded, for requests that go on."""

    def forget(self, request: Request) -> None:
        """A request ended; drop its state."""


@dataclass(frozen=True)
class DrafterContext:
    """What a drafter of a third party is built from."""

    options: Mapping[str, Any]  # from the configuration, as they are
    max_nodes: int  # most nodes of a tree, root not counted
    runners: Sequence[ModelRunner]  # the draft models it asked for
    source: int  # its place in the portfolio: tells its stream of chance apart


class DrafterFactory(Protocol):
    """Makes a drafter; a class or function with the contracts of its proposals as an attribute."""

    contracts: frozenset[Contract]

    def __call__(self, context: DrafterContext) -> Drafter:
        """A drafter for one pass."""


class NoDrafter:
    """Proposes nothing: incremental decoding."""

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:  # noqa: ARG002
        return [Proposals.none(request.last_token_id) for request in requests]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        pass

    def forget(self, request: Request) -> None:
        pass
