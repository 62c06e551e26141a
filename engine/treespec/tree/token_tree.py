"""The token tree of a speculation step (SpecInfer, definition 3.1), as arrays on the host.

Legend: N nodes, root included. Node 0 is the last emitted token; a parent stands before its children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class TokenTree:
    """Speculated continuations of one request: N = 1 is incremental decoding, a chain sequence speculation."""

    token_ids: np.ndarray  # int64 [N]
    parents: np.ndarray  # int64 [N], parents[0] = -1
    depths: np.ndarray  # int64 [N], depths[0] = 0

    def __post_init__(self) -> None:
        assert self.token_ids.shape == self.parents.shape == self.depths.shape and len(self.parents) >= 1
        assert self.parents[0] == -1 and (self.parents[1:] < np.arange(1, len(self))).all()
        assert (self.depths[1:] == self.depths[self.parents[1:]] + 1).all() and self.depths[0] == 0

    def __len__(self) -> int:
        return len(self.token_ids)

    @classmethod
    def root(cls, token_id: int) -> TokenTree:
        """The tree without speculation."""
        return cls.chain([token_id])

    @classmethod
    def chain(cls, token_ids: Sequence[int]) -> TokenTree:
        """One path: every node the child of the one before."""
        depths = np.arange(len(token_ids), dtype=np.int64)
        return cls(np.asarray(token_ids, dtype=np.int64), depths - 1, depths)

    @cached_property
    def ancestors(self) -> np.ndarray:
        """Bool ``[N, N]``: row n marks n and its ancestors (the topology-aware causal mask, section 4.2)."""
        mask = np.eye(len(self), dtype=bool)
        for node in range(1, len(self)):
            mask[node] |= mask[self.parents[node]]
        return mask

    @cached_property
    def children(self) -> list[dict[int, int]]:
        """Per node: token id -> child node."""
        children: list[dict[int, int]] = [{} for _ in range(len(self))]
        for node in range(1, len(self)):
            children[self.parents[node]][int(self.token_ids[node])] = node
        return children

    def path_tokens(self, node: int) -> list[int]:
        """Token ids from the root to ``node``, both included."""
        tokens = []
        while node >= 0:
            tokens.append(int(self.token_ids[node]))
            node = int(self.parents[node])
        return tokens[::-1]


class TreeBuilder:
    """Grows a tree node by node; a token already below the same parent is that node (merging by root path)."""

    def __init__(self, root_token_id: int) -> None:
        self._token_ids = [root_token_id]
        self._parents = [-1]
        self._depths = [0]
        self._index: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._token_ids)

    def add(self, parent: int, token_id: int) -> int:
        """The node of ``token_id`` below ``parent``, made if it does not exist."""
        key = (parent, token_id)
        if key not in self._index:
            self._index[key] = len(self._token_ids)
            self._token_ids.append(token_id)
            self._parents.append(parent)
            self._depths.append(self._depths[parent] + 1)
        return self._index[key]

    def token_id(self, node: int) -> int:
        """Token of a node."""
        return self._token_ids[node]

    def parent(self, node: int) -> int:
        """Parent of a node; -1 for the root."""
        return self._parents[node]

    def build(self) -> TokenTree:
        """The frozen tree."""
        arrays = (np.asarray(column, dtype=np.int64) for column in (self._token_ids, self._parents, self._depths))
        return TokenTree(*arrays)
