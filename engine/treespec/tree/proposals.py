"""What a drafter says of its tree: how each proposal was chosen, so that a verifier can refuse what it cannot judge.

Legend: N nodes, R proposals, Q draft distributions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from treespec.tree.token_tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


class Contract(Enum):
    """How a proposal was chosen from the draft's distribution."""

    DETERMINISTIC = "deterministic"  # a function of the distribution, such as its top k
    IID = "iid"  # drawn with replacement; multiplicity counts
    WITHOUT_REPLACEMENT = "without_replacement"  # drawn in order, each from what the earlier ones left


@dataclass(frozen=True, eq=False)
class Proposals:
    """A tree and its proposals, one row per draw: a token drawn twice below a node is one node and two rows.

    A portfolio mixes contracts, so the contract belongs to the row and not to the tree. Rows stand in the order in
    which a verifier has to try those below the same parent. ``q_QV`` holds the distributions that rows of a random
    contract were drawn from, after every transformation; siblings drawn without replacement share the row of the
    first draw.
    """

    tree: TokenTree
    nodes: np.ndarray  # int64 [R], the proposed node; its parent is tree.parents[node]
    contracts: tuple[Contract, ...]  # [R]
    drafters: np.ndarray  # int64 [R], which drafter of a portfolio
    q_rows: np.ndarray  # int64 [R], row of q_QV; -1 where the contract needs none
    q_QV: Tensor | None = None

    def __post_init__(self) -> None:
        assert len(self.nodes) == len(self.contracts) == len(self.drafters) == len(self.q_rows)
        assert set(self.nodes.tolist()) == set(range(1, len(self.tree))), "every node but the root was proposed"

    @classmethod
    def none(cls, root_token_id: int) -> Proposals:
        """No speculation: the tree is its root."""
        return cls.deterministic(TokenTree.root(root_token_id))

    @classmethod
    def deterministic(cls, tree: TokenTree, drafter: int = 0) -> Proposals:
        """Every node but the root proposed once, as a function of the draft's distribution."""
        n = len(tree) - 1
        return cls(
            tree=tree,
            nodes=np.arange(1, n + 1, dtype=np.int64),
            contracts=(Contract.DETERMINISTIC,) * n,
            drafters=np.full(n, drafter, dtype=np.int64),
            q_rows=np.full(n, -1, dtype=np.int64),
        )

    @cached_property
    def rows_below(self) -> list[list[int]]:
        """Per node: the rows that propose its children, in the order to try them."""
        rows: list[list[int]] = [[] for _ in range(len(self.tree))]
        for row, parent in enumerate(self.tree.parents[self.nodes].tolist()):
            rows[parent].append(row)
        return rows

    @cached_property
    def is_chain(self) -> bool:
        """Whether below every node at most one token was drawn."""
        return all(len(rows) <= 1 for rows in self.rows_below)
