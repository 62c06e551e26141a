"""What a drafter says of its tree: how each proposal was chosen, so that a verifier can refuse what it cannot judge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
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
    """A tree and its proposals, one row per (parent, drafter, draw order).

    A portfolio mixes contracts, so the contract belongs to the row and not to the tree. ``q_RV`` holds the draft
    distributions that rows with a random contract were drawn from; deterministic rows need none.
    """

    tree: TokenTree
    nodes: np.ndarray  # int64 [R], the proposed node; its parent is tree.parents[node]
    drafters: np.ndarray  # int64 [R], which drafter of a portfolio
    draw_orders: np.ndarray  # int64 [R], order among this drafter's proposals below the same parent
    multiplicities: np.ndarray  # int64 [R], how often the same draw came up
    contracts: tuple[Contract, ...]  # [R]
    q_rows: np.ndarray  # int64 [R], row of q_RV; -1 where the contract needs none
    q_RV: Tensor | None = None

    @classmethod
    def none(cls, root_token_id: int) -> Proposals:
        """No speculation: the tree is its root."""
        return cls.deterministic(TokenTree.root(root_token_id))

    @classmethod
    def deterministic(cls, tree: TokenTree, drafter: int = 0) -> Proposals:
        """Every node but the root proposed once, as a function of the draft's distribution."""
        nodes = np.arange(1, len(tree), dtype=np.int64)
        orders = np.zeros(len(nodes), dtype=np.int64)
        seen: dict[int, int] = {}
        for row, parent in enumerate(tree.parents[1:].tolist()):
            orders[row] = seen.get(parent, 0)
            seen[parent] = int(orders[row]) + 1
        return cls(
            tree=tree,
            nodes=nodes,
            drafters=np.full(len(nodes), drafter, dtype=np.int64),
            draw_orders=orders,
            multiplicities=np.ones(len(nodes), dtype=np.int64),
            contracts=(Contract.DETERMINISTIC,) * len(nodes),
            q_rows=np.full(len(nodes), -1, dtype=np.int64),
        )
