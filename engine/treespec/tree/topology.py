"""The shape of a tree before its tokens are known; torch-free.

Legend: N nodes, root included; node 0 is the root, a parent stands before its children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Topology:
    """How many children every node gets: the k-th child of a node is the k-th proposal below it."""

    parents: tuple[int, ...]  # [N], parents[0] = -1

    def __post_init__(self) -> None:
        assert self.parents[0] == -1
        assert all(0 <= parent < node for node, parent in enumerate(self.parents[1:], start=1))

    def __len__(self) -> int:
        return len(self.parents)

    @classmethod
    def from_expansion(cls, widths: Sequence[int]) -> Topology:
        """Every leaf gets k_i children at step i (SpecInfer, section 3): <k_1, ..., k_m>."""
        parents, leaves = [-1], [0]
        for width in widths:
            first = len(parents)
            parents += [leaf for leaf in leaves for _ in range(width)]
            leaves = list(range(first, len(parents)))
        return cls(tuple(parents))

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Per node its children, first proposal first."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents[1:], start=1):
            children[parent].append(node)
        return tuple(map(tuple, children))

    @cached_property
    def depths(self) -> np.ndarray:
        """Int64 ``[N]``."""
        depths = np.zeros(len(self), dtype=np.int64)
        for node, parent in enumerate(self.parents[1:], start=1):
            depths[node] = depths[parent] + 1
        return depths

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return int(self.depths.max())

    @property
    def is_chain(self) -> bool:
        """Whether no node has two children."""
        return all(len(children) <= 1 for children in self.children)
