"""What a verifier is. Words: accepted (proposed and kept), bonus (the target's token after them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from treespec.tree import Contract, Proposals


@dataclass(frozen=True)
class VerifyResult:
    """The accepted root path and the target's next token; emitted = accepted + 1."""

    accepted_nodes: tuple[int, ...]  # root excluded, in order
    next_token_id: int


class Verifier(Protocol):
    """A pure function of proposals and target logits; refuses contracts it is not lossless for."""

    contracts: frozenset[Contract]

    def verify(self, proposals: Sequence[Proposals], logits_TV: Tensor) -> list[VerifyResult]:
        """Judge a batch; ``logits_TV`` holds a row per node, tree after tree."""
