"""How a tree lies in the rows of a target pass: whole under a tree mask, or every path by itself. Torch-free.

Legend: N nodes of a tree, root included; T tokens of all its rows together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from treespec.tree.token_tree import TokenTree


@dataclass(frozen=True, eq=False)
class LaidTree:
    """A tree and the rows that compute it; a row's tokens see each other as the tree's ancestors do, and no other row.

    Every node is in a row together with all its ancestors, and every root path lies whole in one row.
    """

    tree: TokenTree
    rows: tuple[np.ndarray, ...]  # int64, the nodes of each row, ancestors before descendants

    @property
    def num_tokens(self) -> int:
        """T: a node counts once per row that holds it."""
        return sum(map(len, self.rows))

    @cached_property
    def results(self) -> np.ndarray:
        """Int64 ``[N]``: which of the T tokens' results is each node's: that of the first row which holds it."""
        nodes, results = np.unique(np.concatenate(self.rows), return_index=True)
        assert len(nodes) == len(self.tree), "every node is in a row"
        return results

    def places(self, path: Sequence[int]) -> list[int]:
        """Where a root path lies among the T tokens: all of it in the first row that holds it whole, ascending."""
        first = 0
        for row in self.rows:
            place = {node: first + index for index, node in enumerate(row.tolist())}
            if path[-1] in place:
                return [place[node] for node in path]
            first += len(row)
        raise AssertionError("no row holds the path")


Layout = Callable[[TokenTree], LaidTree]


def whole_tree(tree: TokenTree) -> LaidTree:
    """One row: tree-based parallel decoding (SpecInfer, section 4.2)."""
    return LaidTree(tree, (np.arange(len(tree), dtype=np.int64),))


def separate_sequences(tree: TokenTree) -> LaidTree:
    """A row per root-to-leaf path: sequence-based parallel decoding (SpecInfer, section 6.5)."""
    leaves = np.setdiff1d(np.arange(len(tree)), tree.parents)
    return LaidTree(tree, tuple(np.flatnonzero(tree.ancestors[leaf]) for leaf in leaves))


LAYOUTS: dict[str, Layout] = {"tree": whole_tree, "sequences": separate_sequences}


def node_results(trees: Sequence[LaidTree]) -> np.ndarray:
    """Int64: the results of all trees' nodes, tree after tree, among those of all their tokens."""
    firsts = np.cumsum([0, *(laid.num_tokens for laid in trees)])
    return np.concatenate([first + laid.results for first, laid in zip(firsts, trees, strict=False)])
