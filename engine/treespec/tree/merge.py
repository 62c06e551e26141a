"""Merging the trees of several drafters into one (SpecInfer, definition 3.2); torch-free.

Legend: N nodes, R proposals, Q draft distributions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treespec.tree.proposals import Proposals
from treespec.tree.token_tree import TokenTree, TreeBuilder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Merged:
    """The united tree with the proposals of all sources, and where each source's nodes went."""

    proposals: Proposals
    node_maps: tuple[tuple[int, ...], ...]  # per source: own node -> node of the united tree

    def own_path(self, source: int, path: Sequence[int]) -> list[int]:
        """What of a root path of the united tree lies in one source's tree, as that source's nodes.

        It is a prefix of the path: a node is in a tree only with all its ancestors.
        """
        own = {node: own_node for own_node, node in enumerate(self.node_maps[source])}
        return [own[node] for node in path if node in own]


def merge(sources: Sequence[Proposals], q_QV: Tensor | None = None) -> Merged:
    """Unite trees of one root: nodes are equal if their whole root paths are, not if token and depth are.

    Every row is kept, so a token that two sources propose below the same parent is one node and two rows. Rows below
    a node stand source after source, each in its own order; sources are renumbered by their place. ``q_QV`` holds the
    sources' distributions one after the other.
    """
    assert sources and len({int(source.tree.token_ids[0]) for source in sources}) == 1, "one root for all"
    builder = TreeBuilder(int(sources[0].tree.token_ids[0]))
    node_maps = tuple(_insert(source.tree, builder) for source in sources)
    num_rows = [0 if source.q_QV is None else len(source.q_QV) for source in sources]
    assert sum(num_rows) == (0 if q_QV is None else len(q_QV)), "the distributions of all sources and no others"
    firsts = np.cumsum([0, *num_rows[:-1]])
    proposals = Proposals(
        tree=builder.build(),
        nodes=np.concatenate([np.asarray(m)[source.nodes] for m, source in zip(node_maps, sources, strict=True)]),
        contracts=tuple(contract for source in sources for contract in source.contracts),
        drafters=np.repeat(np.arange(len(sources)), [len(source.nodes) for source in sources]),
        q_rows=np.concatenate([_shifted(source, first) for source, first in zip(sources, firsts, strict=True)]),
        q_QV=q_QV,
    )
    return Merged(proposals, node_maps)


def _insert(tree: TokenTree, builder: TreeBuilder) -> tuple[int, ...]:
    nodes = [0]
    for token_id, parent in zip(tree.token_ids[1:].tolist(), tree.parents[1:].tolist(), strict=True):
        nodes.append(builder.add(nodes[parent], token_id))
    return tuple(nodes)


def _shifted(source: Proposals, first: int) -> np.ndarray:
    """Int64 ``[R]``: the source's rows of q among those of all sources."""
    assert len(set(source.drafters.tolist())) <= 1, "a source is one drafter: its own numbers are replaced"
    return np.where(source.q_rows < 0, source.q_rows, source.q_rows + first)
