"""Naive sampling (SpecInfer, section 4.3), also called sampler match: the target draws, the tree follows if it can."""

from __future__ import annotations

from collections.abc import Sequence

from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals
from treespec.verify.protocol import VerifyResult


class SamplerMatchVerifier:
    """At every node the target chooses its token; a child that carries it is accepted.

    Lossless for any tree, because the tree has no say in what is chosen. At temperature 0 it is greedy verification,
    and with the same seed its text is that of decoding without speculation.
    """

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = False

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        starts = first_rows(proposals)
        paths: list[list[int]] = [[] for _ in proposals]
        next_tokens = [-1] * len(proposals)
        walking = list(range(len(proposals)))
        while walking:
            nodes = [paths[item][-1] if paths[item] else 0 for item in walking]
            p_RV = target.probabilities([starts[item] + node for item, node in zip(walking, nodes, strict=True)])
            tokens = draws.choose(walking, p_RV, [len(paths[item]) + 1 for item in walking])
            still = []
            for item, node, token in zip(walking, nodes, tokens, strict=True):
                child = proposals[item].tree.children[node].get(token)
                if child is None:
                    next_tokens[item] = token
                else:
                    paths[item].append(child)
                    still.append(item)
            walking = still
        return [VerifyResult(tuple(path), token) for path, token in zip(paths, next_tokens, strict=True)]


def first_rows(proposals: Sequence[Proposals]) -> list[int]:
    """Where each tree's rows begin among the target's."""
    starts, start = [], 0
    for item in proposals:
        starts.append(start)
        start += len(item.tree)
    return starts
