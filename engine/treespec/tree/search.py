"""The best trees for measured rank acceptance: Sequoia's optimum (Chen et al. 2024) by a best-first heap. Torch-free.

Legend: N nodes, root included; D levels below the root; K children of a node, first proposal first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from treespec.tree.topology import Topology

Acceptance = Sequence[Sequence[float]] | np.ndarray
"""``[D][K]``: probability that child k of a reached node of depth d is the accepted one; the last row holds below."""


@dataclass(frozen=True)
class NestedTopologies:
    """The best trees of 1 to N nodes; each is the one before it and one more node."""

    parents: tuple[int, ...]  # [N], of the largest tree
    expected_tokens: tuple[float, ...]  # [N], emitted per step by the best tree of so many nodes, index 0 for one node

    def __len__(self) -> int:
        return len(self.parents)

    def topology(self, num_nodes: int) -> Topology:
        """The best tree of ``num_nodes``, root included."""
        assert 1 <= num_nodes <= len(self)
        return Topology(self.parents[:num_nodes])

    @cached_property
    def level_rows(self) -> np.ndarray:
        """Int64 ``[N, D]``: nodes with children per depth, what a draft model runs to grow the tree of so many nodes.

        D is at least 1; depths without such nodes hold 0.
        """
        depths = Topology(self.parents).depths
        rows = np.zeros((len(self), max(1, int(depths.max()))), dtype=np.int64)
        seen: set[int] = set()
        for node, parent in enumerate(self.parents[1:], start=1):
            if parent not in seen:
                seen.add(parent)
                rows[node:, depths[parent]] += 1
        return rows


def best_topologies(acceptance: Acceptance, max_nodes: int, max_depth: int) -> NestedTopologies:
    """The trees of 1 to ``max_nodes`` nodes that emit the most tokens per step, in one pass; O(N log N).

    A tree emits the sum over its nodes of the products of acceptance along their paths, the root's own token being 1.
    With rows that do not increase, a node is never worth more than its parent or its elder sibling, so taking the
    most valuable open node is optimal. Rows that do increase are taken at their running minimum. The curve ends
    early where ``max_depth`` and the rows' widths allow no further node.
    """
    assert len(acceptance) > 0 and max_nodes >= 1 and max_depth >= 0
    rows = [np.minimum.accumulate(np.asarray(row, dtype=float)).tolist() for row in acceptance]
    rows += [rows[-1]] * (max_depth - len(rows))
    parents, values, depths, expected = [-1], [1.0], [0], [1.0]
    heap: list[tuple[float, int, int]] = []  # minus the value, parent, rank

    def offer(parent: int, rank: int) -> None:
        depth = depths[parent]
        if depth < max_depth and rank < len(rows[depth]):
            heapq.heappush(heap, (-values[parent] * rows[depth][rank], parent, rank))

    offer(0, 0)
    while heap and len(parents) < max_nodes:
        negative, parent, rank = heapq.heappop(heap)
        offer(parent, rank + 1)
        parents.append(parent)
        values.append(-negative)
        depths.append(depths[parent] + 1)
        expected.append(expected[-1] - negative)
        offer(len(parents) - 1, 0)
    return NestedTopologies(tuple(parents), tuple(expected))


def best_topology(acceptance: Acceptance, num_nodes: int, max_depth: int) -> Topology:
    """The tree of ``num_nodes``, root included, that emits the most tokens per step; smaller where no more fit."""
    nested = best_topologies(acceptance, num_nodes, max_depth)
    return nested.topology(len(nested))
