"""Greedy verification (SpecInfer, algorithm 2, VerifyGreedy)."""

from __future__ import annotations

from collections.abc import Sequence

from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals, TokenTree
from treespec.verify.protocol import VerifyResult


class GreedyVerifier:
    """Walks down while a child carries the target's likeliest token; lossless however the tree was proposed."""

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = True

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:  # noqa: ARG002
        choices = target.likeliest()
        results, start = [], 0
        for item in proposals:
            results.append(_walk(item.tree, choices[start : start + len(item.tree)]))
            start += len(item.tree)
        assert start == len(choices), "one row of logits per node"
        return results


def _walk(tree: TokenTree, choices: list[int]) -> VerifyResult:
    node, path = 0, []
    while (child := tree.children[node].get(choices[node])) is not None:
        path.append(child)
        node = child
    return VerifyResult(tuple(path), choices[node])
