"""Trees grown by the draft's own confidence (EAGLE-2, Li et al. 2024). Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from treespec.draft.growth import Growth
from treespec.tree import Contract, Proposals, TokenTree, TreeBuilder

if TYPE_CHECKING:
    from torch import Tensor


class DynamicGrowth:
    """Every level expands its most probable nodes; in the end the most probable nodes of all levels are the tree.

    A node's value is the probability that the draft gives its path, so it never exceeds its parent's and whatever is
    kept is a tree. What is kept depends on the tokens, which only verifiers that ask nothing of the proposals allow:
    the contract must be deterministic.
    """

    needs_scores = True

    def __init__(self, root_token_id: int, num_nodes: int, max_depth: int, width: int) -> None:
        assert num_nodes >= 1 and width >= 1, "num_nodes counts the root"
        self._num_nodes = num_nodes
        self._max_depth = max_depth
        self._width = width
        self._builder = TreeBuilder(root_token_id)
        self._values = [0.0]  # per grown node: log-probability of its path
        self._kept: list[int] = []
        self._depth = 0
        self.frontier: list[int] = self._best([0])

    @property
    def depth(self) -> int:
        return self._depth

    def widths(self) -> list[int]:
        return [self._width] * len(self.frontier)

    def token_id(self, node: int) -> int:
        return self._builder.token_id(node)

    def parent(self, node: int) -> int:
        return self._builder.parent(node)

    def expand(
        self,
        tokens: Sequence[Sequence[int]],
        contract: Contract,
        q_rows: Sequence[int],  # noqa: ARG002
        scores: Sequence[Sequence[float]] | None = None,
    ) -> None:
        assert contract is Contract.DETERMINISTIC, "pruning what was drawn is not lossless"
        assert scores is not None
        grown: list[int] = []
        for parent, chosen, log_q in zip(self.frontier, tokens, scores, strict=True):
            for token_id, score in zip(chosen, log_q, strict=True):
                assert score <= 0 and len(self._values) == len(self._builder)
                grown.append(self._builder.add(parent, token_id))
                self._values.append(self._values[parent] + score)
        self._depth += 1
        self.frontier = self._best(grown)

    def build(self, q_QV: Tensor | None) -> Proposals:
        assert q_QV is None
        self._kept = sorted(self._most_probable(range(len(self._builder)), self._num_nodes))
        place = {node: index for index, node in enumerate(self._kept)}
        grown = self._builder.build()
        parents = [-1, *(place[int(grown.parents[node])] for node in self._kept[1:])]
        tree = TokenTree(grown.token_ids[self._kept], np.asarray(parents, dtype=np.int64), grown.depths[self._kept])
        return Proposals.deterministic(tree)

    def origin(self, node: int) -> int:
        return self._kept[node]

    def _best(self, nodes: Sequence[int]) -> list[int]:
        """The nodes to expand next, in the order in which they were grown; none whose children could not be kept."""
        if self._depth >= self._max_depth:
            return []
        contenders = set(self._most_probable(range(len(self._builder)), self._num_nodes - 1))
        return sorted(contenders.intersection(self._most_probable(nodes, self._width)))

    def _most_probable(self, nodes: Sequence[int], count: int) -> list[int]:
        """Elder nodes win ties, so that a parent stands before a child that is certain."""
        return sorted(nodes, key=lambda node: (-self._values[node], node))[:count]


class ConfidenceRule:
    """Dynamic trees of at most ``num_nodes``, root included."""

    def __init__(self, num_nodes: int, max_depth: int, width: int) -> None:
        self._num_nodes = num_nodes
        self._max_depth = max_depth
        self._width = width

    def begin(self, batch_size: int) -> Callable[[int, int], Growth]:  # noqa: ARG002
        def grow(root_token_id: int, max_depth: int) -> Growth:
            return DynamicGrowth(root_token_id, self._num_nodes, min(max_depth, self._max_depth), self._width)

        return grow

    def observe(self, proposals: Sequence[Proposals], accepted: Sequence[Sequence[int]]) -> None:
        pass
