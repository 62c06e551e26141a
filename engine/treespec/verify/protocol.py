"""What a verifier is. Words: accepted (proposed and kept), bonus (the target's token after them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treespec.errors import ConfigError
from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals


@dataclass(frozen=True)
class VerifyResult:
    """The accepted root path and the target's next token; emitted = accepted + 1."""

    accepted_nodes: tuple[int, ...]  # root excluded, in order
    next_token_id: int


class Verifier(Protocol):
    """A pure function of proposals, target distributions and draws; declares what it is lossless for."""

    contracts: frozenset[Contract]  # how proposals may have been chosen
    chains_only: bool  # whether it judges at most one draw below a node
    greedy_only: bool  # whether it is lossless at temperature 0 alone

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        """Judge a batch; ``target`` holds a row per node, tree after tree. Item i of ``draws`` is proposals[i]."""


def require_lossless(
    name: str, verifier: Verifier, contracts: frozenset[Contract], *, is_chain: bool, is_greedy: bool, where: str
) -> None:
    """Refuse a verifier for proposals or sampling under which it would change the target's distribution.

    Raises ConfigError naming what it allows.
    """
    if refused := contracts - verifier.contracts:
        raise ConfigError(
            f"verifier {name!r} is not lossless for proposals chosen this way",
            where=where,
            received=_names(refused),
            allowed=_names(verifier.contracts),
            fix="choose another verifier, or another selection for the drafter",
        )
    if verifier.chains_only and not is_chain:
        raise ConfigError(
            f"verifier {name!r} judges chains", where=where, received="a tree", allowed="one child per node"
        )
    if verifier.greedy_only and not is_greedy:
        raise ConfigError(
            f"verifier {name!r} always takes the likeliest token",
            where=where,
            received="a temperature above 0",
            allowed="temperature 0",
            fix="choose a verifier that samples, such as sampler_match",
        )


def _names(contracts: frozenset[Contract]) -> str:
    return ", ".join(sorted(contract.value for contract in contracts))
