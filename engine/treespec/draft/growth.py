"""One request's tree while it grows, level by level: which nodes get how many children. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from treespec.tree import Contract, Proposals, Topology, TreeBuilder

if TYPE_CHECKING:
    from torch import Tensor


class Growth(Protocol):
    """A tree while it grows: level by level the frontier's nodes get children, until no frontier is left."""

    @property
    def frontier(self) -> Sequence[int]:
        """Nodes that get children now, all of one depth."""

    @property
    def depth(self) -> int:
        """Of the frontier's nodes."""

    @property
    def needs_scores(self) -> bool:
        """Whether ``expand`` has to be told how probable each token is."""

    def widths(self) -> list[int]:
        """Children that every node of the frontier gets."""

    def token_id(self, node: int) -> int:
        """Token of a node."""

    def parent(self, node: int) -> int:
        """Parent of a node."""

    def expand(
        self,
        tokens: Sequence[Sequence[int]],
        contract: Contract,
        q_rows: Sequence[int],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """Give the frontier its children: tokens in the order of choice, the row of q each came from, log q."""

    def build(self, q_QV: Tensor | None) -> Proposals:
        """The finished tree; ``q_QV`` holds the rows that ``expand`` was told of."""

    def origin(self, node: int) -> int:
        """The grown node that a node of the built tree is."""


class GrowthRule(Protocol):
    """How the trees of a step are shaped; may learn from what was accepted."""

    def begin(self, batch_size: int) -> Callable[[int, int], Growth]:
        """For one step: (root token, largest depth) to a growth. Must not depend on what this step draws."""

    def observe(self, proposals: Sequence[Proposals], accepted: Sequence[Sequence[int]]) -> None:
        """What became of the last step's trees of requests that go on: their accepted nodes, root excluded."""


class FixedTopology:
    """The same topology in every step."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def begin(self, batch_size: int) -> Callable[[int, int], Growth]:  # noqa: ARG002
        return lambda root_token_id, max_depth: TreeGrowth(root_token_id, self._topology, max_depth)

    def observe(self, proposals: Sequence[Proposals], accepted: Sequence[Sequence[int]]) -> None:
        pass


class TreeGrowth:
    """Fills a topology with tokens. A token drawn again below the same parent is the node it already is.

    The number of children of a node depends on its place alone, never on what is drawn for it: pruning by what was
    drawn would break every rule that compares p with q.
    """

    needs_scores = False

    def __init__(self, root_token_id: int, topology: Topology, max_depth: int) -> None:
        self._topology = topology
        self._max_depth = max_depth
        self._builder = TreeBuilder(root_token_id)
        self._place = [0]  # per node: its place in the topology
        self._rows: list[tuple[int, Contract, int]] = []  # node, contract, row of q
        self._depth = 0
        self.frontier: list[int] = self._growing([0])

    @property
    def depth(self) -> int:
        return self._depth

    def origin(self, node: int) -> int:
        return node

    def widths(self) -> list[int]:
        return [len(self._topology.children[self._place[node]]) for node in self.frontier]

    def token_id(self, node: int) -> int:
        return self._builder.token_id(node)

    def parent(self, node: int) -> int:
        return self._builder.parent(node)

    def expand(
        self,
        tokens: Sequence[Sequence[int]],
        contract: Contract,
        q_rows: Sequence[int],
        scores: Sequence[Sequence[float]] | None = None,  # noqa: ARG002
    ) -> None:
        grown: list[int] = []
        for parent, chosen, q_row in zip(self.frontier, tokens, q_rows, strict=True):
            for place, token_id in zip(self._topology.children[self._place[parent]], chosen, strict=False):
                before = len(self._builder)
                node = self._builder.add(parent, token_id)
                self._rows.append((node, contract, q_row))
                if node == before:
                    self._place.append(place)
                    grown.append(node)
        self._depth += 1
        self.frontier = self._growing(grown)

    def build(self, q_QV: Tensor | None) -> Proposals:
        nodes, contracts, q_rows = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return Proposals(
            tree=self._builder.build(),
            nodes=np.asarray(nodes, dtype=np.int64),
            contracts=tuple(contracts),
            drafters=np.zeros(len(nodes), dtype=np.int64),
            q_rows=np.asarray(q_rows, dtype=np.int64),
            q_QV=q_QV,
        )

    def _growing(self, nodes: Sequence[int]) -> list[int]:
        if self._depth >= self._max_depth:
            return []
        return [node for node in nodes if self._topology.children[self._place[node]]]
