"""Every outcome of drafting and verifying, each with its exact probability, through the code that production runs.

Chance enters that code through ``Draws`` alone. Here a script answers in its place; where the script ends, the first
possible outcome is taken and the others are noted as scripts still to be run. A batch item is a script.

Legend: R rows, one per item that draws now; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from treespec.audit.toy import ToyWorld
from treespec.draft.growth import TreeGrowth
from treespec.draft.selection import Leaves, Selection
from treespec.ops.sampling import TargetRows
from treespec.tree import Proposals, Topology
from treespec.tree.merge import merge
from treespec.verify import Verifier

S = TypeVar("S")
T = TypeVar("T")
Script = tuple[int, ...]  # the outcomes of an item's draws, in order
ROOT_TOKEN_ID = 0  # of no consequence: prefixes begin after it


class ScriptedDraws:
    """Answers every draw of an item from its script and multiplies the probabilities of the answers."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = scripts
        self._taken: list[list[int]] = [[] for _ in scripts]
        self.probabilities = [1.0] * len(scripts)
        self.unexplored: list[tuple[int, Script]] = []  # item, and a script that leaves its way

    def accept(self, items: Sequence[int], probabilities_R: Tensor) -> list[bool]:
        chances = probabilities_R.double().clamp(max=1).tolist()
        return [self.answer(item, [1 - p, p]) == 1 for item, p in zip(items, chances, strict=True)]

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:  # noqa: ARG002
        weights_RV = weights_RV.double()
        p_RV = weights_RV / weights_RV.sum(dim=-1, keepdim=True)
        return [self.answer(item, p_V) for item, p_V in zip(items, p_RV.tolist(), strict=True)]

    def answer(self, item: int, chances: Sequence[float]) -> int:
        """The outcome of one draw, given the probability of each."""
        assert all(0 <= p <= 1 for p in chances), f"not probabilities: {chances}"
        script, taken = self._scripts[item], self._taken[item]
        if len(taken) < len(script):
            outcome = script[len(taken)]
        else:
            outcome, *others = (outcome for outcome, p in enumerate(chances) if p > 0)
            self.unexplored += [(item, (*taken, other)) for other in others]
        taken.append(outcome)
        self.probabilities[item] *= chances[outcome]
        return outcome


@dataclass(frozen=True)
class Weighted(Generic[T]):
    """Something that happens with a probability."""

    value: T
    probability: float


@dataclass(frozen=True)
class Drafting:
    """One drafter: how it chooses children, how many, and from which of the world's drafts."""

    selection: Selection
    topology: Topology
    drafter: int = 0


@dataclass(frozen=True, eq=False)
class DraftedTree:
    """A tree of a toy world, with the prefix at every node."""

    proposals: Proposals
    prefixes: tuple[int, ...]


@dataclass(frozen=True)
class Emitted:
    """What a step emitted, as a prefix of the world, and how much of it was drafted."""

    prefix: int
    num_accepted: int


MakeDraws = Callable[[Sequence[DraftedTree], Sequence[Script]], ScriptedDraws]


def scripted(trees: Sequence[DraftedTree], scripts: Sequence[Script]) -> ScriptedDraws:  # noqa: ARG001
    """Draws that do not look at what was drafted: honest ones."""
    return ScriptedDraws(scripts)


def every_outcome(
    starts: Sequence[Weighted[S]],
    run: Callable[[Sequence[S], ScriptedDraws], Sequence[T]],
    make_draws: Callable[[Sequence[S], Sequence[Script]], ScriptedDraws],
) -> list[Weighted[T]]:
    """All that ``run`` can make of all that it can start from; the scripts of one generation are one batch."""
    outcomes: list[Weighted[T]] = []
    pending: list[tuple[Weighted[S], Script]] = [(start, ()) for start in starts]
    while pending:
        items = [start.value for start, _ in pending]
        draws = make_draws(items, [script for _, script in pending])
        results = run(items, draws)
        for (start, _), result, probability in zip(pending, results, draws.probabilities, strict=True):
            outcomes.append(Weighted(result, start.probability * probability))
        pending = [(pending[item][0], script) for item, script in draws.unexplored]
    return outcomes


def every_tree(world: ToyWorld, drafts: Sequence[Drafting]) -> list[Weighted[DraftedTree]]:
    """Every tree that the drafters can propose; those of several drafters are independent, and merged."""
    unions: list[Weighted[tuple[Proposals, ...]]] = [Weighted((), 1.0)]
    for draft in drafts:
        grow = partial(_grow, world, draft)
        own = every_outcome([Weighted(None, 1.0)], grow, lambda _, scripts: ScriptedDraws(scripts))
        unions = [
            Weighted((*union.value, tree.value), union.probability * tree.probability)
            for union in unions
            for tree in own
        ]
    return [Weighted(_drafted(world, union.value), union.probability) for union in unions]


def every_output(
    world: ToyWorld, trees: Sequence[Weighted[DraftedTree]], verifier: Verifier, make_draws: MakeDraws = scripted
) -> list[Weighted[Emitted]]:
    """Everything that a step over the drafted trees can emit."""
    return every_outcome(trees, partial(_verify, world, verifier), make_draws)


def _grow(world: ToyWorld, draft: Drafting, items: Sequence[None], draws: ScriptedDraws) -> list[Proposals]:
    """One tree per script, all grown level by level; they share the tensor of what they were drawn from."""
    growths = [TreeGrowth(ROOT_TOKEN_ID, draft.topology, draft.topology.depth) for _ in items]
    prefixes: list[dict[int, int]] = [{-1: 0} for _ in items]
    q_levels: list[Tensor] = []
    num_q = 0
    while growing := [(item, node) for item, growth in enumerate(growths) for node in growth.frontier]:
        for item, node in growing:
            token_id, parent = growths[item].token_id(node), growths[item].parent(node)
            prefixes[item][node] = world.child(prefixes[item][parent], token_id) if node else 0
        leaves = Leaves(
            items=[item for item, _ in growing],
            widths=[width for growth in growths for width in growth.widths()],
            depths=[growths[item].depth + 1 for item, _ in growing],
            rules=[world.rule] * len(growing),
        )
        logits_RV = world.drafts_PV[draft.drafter][[prefixes[item][node] for item, node in growing]]
        selected = draft.selection.select(logits_RV, leaves, draws)
        start = 0
        for growth in growths:
            n = len(growth.frontier)
            q_rows = range(num_q + start, num_q + start + n) if selected.q_RV is not None else [-1] * n
            growth.expand(selected.tokens[start : start + n], draft.selection.contract, q_rows)
            start += n
        if selected.q_RV is not None:
            q_levels.append(selected.q_RV)
            num_q += start
    q_QV = torch.cat(q_levels) if q_levels else None
    return [growth.build(q_QV) for growth in growths]


def _drafted(world: ToyWorld, sources: Sequence[Proposals]) -> DraftedTree:
    """The union of what the drafters proposed."""
    proposals = sources[0]
    if len(sources) > 1:
        reported = [source.q_QV for source in sources if source.q_QV is not None]
        proposals = merge(sources, torch.cat(reported) if reported else None).proposals
    prefixes = [0]
    for token_id, parent in zip(
        proposals.tree.token_ids[1:].tolist(), proposals.tree.parents[1:].tolist(), strict=True
    ):
        prefixes.append(world.child(prefixes[parent], token_id))
    return DraftedTree(proposals, tuple(prefixes))


def _verify(world: ToyWorld, verifier: Verifier, trees: Sequence[DraftedTree], draws: ScriptedDraws) -> list[Emitted]:
    rows = [prefix for tree in trees for prefix in tree.prefixes]
    target = TargetRows(world.target_PV[rows], [world.rule] * len(rows))
    results = verifier.verify([tree.proposals for tree in trees], target, draws)
    emitted = []
    for tree, result in zip(trees, results, strict=True):
        accepted = tree.prefixes[(0, *result.accepted_nodes)[-1]]
        emitted.append(Emitted(world.child(accepted, result.next_token_id), len(result.accepted_nodes)))
    return emitted
