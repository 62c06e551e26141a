"""What records say of ranks, against exact enumeration: the share accepted within the first k draws is well defined.

Legend: V vocabulary, K draws below a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pytest

from treespec.audit.enumeration import DraftedTree, Drafting, Script, ScriptedDraws, every_outcome, every_tree
from treespec.audit.toy import KINDS, ToyWorld, toy_world
from treespec.draft.policy import step_outcome
from treespec.draft.selection import SELECTIONS
from treespec.metrics.acceptance import StepOutcome
from treespec.metrics.counts import RequestProfile
from treespec.ops.sampling import TargetRows
from treespec.tree import Topology
from treespec.verify import Verifier, verifiers

WIDTH = 3
VOCAB_SIZE = 4
WORLDS = [pytest.param(kind, seed, id=f"{kind}-{seed}") for kind, seed in product(KINDS, range(2))]


class CountedTrials(ScriptedDraws):
    """Notes per item how many coins it lost before it won one; -1 as long as it has won none."""

    def __init__(self, trees: Sequence[DraftedTree], scripts: Sequence[Script]) -> None:
        super().__init__(scripts)
        self.num_lost = [0] * len(trees)
        self.won_at = [-1] * len(trees)

    def accept(self, items: Sequence[int], probabilities_R: object) -> list[bool]:
        coins = super().accept(items, probabilities_R)  # type: ignore[arg-type]
        for item, is_won in zip(items, coins, strict=True):
            if is_won:
                self.won_at[item] = self.num_lost[item]
            else:
                self.num_lost[item] += 1
        return coins


def judged(
    world: ToyWorld, verifier: Verifier, trees: Sequence[DraftedTree], draws: ScriptedDraws
) -> list[tuple[StepOutcome, int]]:
    """What records count of each tree, and the trial that was accepted."""
    rows = [prefix for tree in trees for prefix in tree.prefixes]
    target = TargetRows(world.target_PV[rows], [world.rule] * len(rows))
    results = verifier.verify([tree.proposals for tree in trees], target, draws)
    assert isinstance(draws, CountedTrials)
    return [
        (step_outcome(tree.proposals, result.accepted_nodes), won_at)
        for tree, result, won_at in zip(trees, results, draws.won_at, strict=True)
    ]


def by_rank(world: ToyWorld, name: str, width: int) -> np.ndarray:
    """``[K]``: probability that the draw of each rank is the accepted one, from what records count."""
    trees = every_tree(world, [Drafting(SELECTIONS["iid"], Topology.from_expansion((width,)))])
    found = np.zeros(width)
    for outcome in every_outcome(trees, partial(judged, world, verifiers().get(name)), CountedTrials):
        counts, won_at = outcome.value
        assert counts.offered == (width,), "every draw is offered, one that was drawn before too"
        if counts.ranks:
            found[counts.ranks[0]] += outcome.probability
            assert name != "mss" or counts.ranks[0] == won_at, "a rank is the number of the trial"
    return found


def mss_by_rank(p_V: np.ndarray, q_V: np.ndarray, width: int) -> np.ndarray:
    """By hand (SpecInfer, algorithm 2): each trial accepts the overlap of what is left of p with q."""
    found, reached = [], 1.0
    for _ in range(width):
        overlap = np.minimum(p_V, q_V).sum()
        found.append(reached * overlap)
        left = np.maximum(p_V - q_V, 0)
        reached *= 1 - overlap
        p_V = left / left.sum() if left.sum() > 1e-12 else p_V
    return np.array(found)


def naive_by_rank(p_V: np.ndarray, q_V: np.ndarray, width: int) -> np.ndarray:
    """By hand: the target's token was not among the draws before and is this one."""
    return np.array([(p_V * (1 - q_V) ** rank * q_V).sum() for rank in range(width)])


BY_HAND = {"mss": mss_by_rank, "sampler_match": naive_by_rank}


@pytest.mark.parametrize(("kind", "seed"), WORLDS)
@pytest.mark.parametrize("name", BY_HAND)
def test_acceptance_by_rank_is_what_the_rule_gives_by_hand(name: str, kind: str, seed: int) -> None:
    world = toy_world(kind, VOCAB_SIZE, depth=1, seed=seed)
    p_V, q_V = world.target_distribution[0], world.distribution(world.drafts_PV[0])[0]
    np.testing.assert_allclose(by_rank(world, name, WIDTH), BY_HAND[name](p_V, q_V, WIDTH), atol=1e-12)


@pytest.mark.parametrize(("kind", "seed"), WORLDS)
@pytest.mark.parametrize("name", BY_HAND)
def test_success_within_the_first_k_draws_is_that_of_a_tree_of_width_k(name: str, kind: str, seed: int) -> None:
    """So one run of the widest tree answers for every k of table 1."""
    world = toy_world(kind, VOCAB_SIZE, depth=1, seed=seed)
    widest = by_rank(world, name, WIDTH)
    for k in range(1, WIDTH + 1):
        assert by_rank(world, name, k).sum() == pytest.approx(widest[:k].sum(), abs=1e-12)


def test_profiles_count_every_draw_as_offered_and_one_as_accepted() -> None:
    profile = RequestProfile()
    profile.count(StepOutcome((3, 3), (1,)))
    profile.count(StepOutcome((3,), ()))
    assert profile.offered == [[2, 2, 2], [1, 1, 1]]
    assert profile.accepted == [[0, 1, 0], [0, 0, 0]]
