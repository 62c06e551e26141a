"""Which topology the next step drafts, learnt from the steps before it. Torch-free.

A policy decides before anything of the step is drawn: the size of a tree then says nothing of its tokens, and every
contract stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from treespec.draft.growth import Growth, TreeGrowth
from treespec.metrics.acceptance import RankAcceptance, StepOutcome
from treespec.tree import Proposals, Topology
from treespec.tree.search import best_topology

ALONE = Topology((-1,))  # the root alone: no speculation
MAX_WIDTH = 8  # ranks that are counted and offered below a node
MEMORY = 256.0  # outcomes after which acceptance is forgotten by a factor e
STEPS_BETWEEN_PLANS = 32


class TreePolicy(Protocol):
    """Chooses topologies step by step and learns from what became of them."""

    def topology(self, batch_size: int) -> Topology:
        """For the step that begins now, the same for each of ``batch_size`` requests."""

    def observe(self, outcomes: Sequence[StepOutcome]) -> None:
        """The step ended; outcomes of the requests that go on."""


class PolicyRule:
    """Grows the topologies of a policy."""

    def __init__(self, policy: TreePolicy) -> None:
        self._policy = policy

    def begin(self, batch_size: int) -> Callable[[int, int], Growth]:
        topology = self._policy.topology(batch_size)
        return lambda root_token_id, max_depth: TreeGrowth(root_token_id, topology, max_depth)

    def observe(self, proposals: Sequence[Proposals], accepted: Sequence[Sequence[int]]) -> None:
        self._policy.observe([step_outcome(item, nodes) for item, nodes in zip(proposals, accepted, strict=True)])


def step_outcome(proposals: Proposals, accepted: Sequence[int]) -> StepOutcome:
    """From a tree and the whole accepted path, root excluded; a token drawn twice has the rank of its first draw."""
    offered, ranks = [], []
    for node, child in zip([0, *accepted], [*accepted, None], strict=True):
        below = [int(proposals.nodes[row]) for row in proposals.rows_below[node]]
        if below:
            offered.append(len(below))
        if child is not None:
            ranks.append(below.index(child))
    return StepOutcome(tuple(offered), tuple(ranks))


class Schedule:
    """When to plan anew: after 1, 2, 4, ... steps while little is known, then at a steady pace."""

    def __init__(self) -> None:
        self._wait = 1
        self._left = 0

    def due(self) -> bool:
        """Whether to plan before this step; asked once per step."""
        if self._left <= 0:
            self._left, self._wait = self._wait, min(2 * self._wait, STEPS_BETWEEN_PLANS)
            return True
        return False

    def step(self) -> None:
        """A step ended."""
        self._left -= 1


class BestTreePolicy:
    """The best tree of ``num_nodes``, root included, for the acceptance measured so far."""

    def __init__(self, num_nodes: int, max_depth: int, acceptance: RankAcceptance | None = None) -> None:
        self._num_nodes = num_nodes
        self._max_depth = max_depth
        self._acceptance = acceptance or RankAcceptance(max_depth, MAX_WIDTH, MEMORY)
        self._schedule = Schedule()
        self._topology = ALONE

    def topology(self, batch_size: int) -> Topology:  # noqa: ARG002
        if self._schedule.due():
            self._topology = best_topology(self._acceptance.table(), self._num_nodes, self._max_depth)
        return self._topology

    def observe(self, outcomes: Sequence[StepOutcome]) -> None:
        self._schedule.step()
        self._acceptance.update(outcomes)
