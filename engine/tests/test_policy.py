"""Policies in a world of known acceptance and cost: they find the best tree, and never pay much for looking."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from engine.tests.worlds import (
    ALONE,
    DEPTH,
    DRAFT,
    FLAT,
    GOOD,
    LAPTOP,
    NODES,
    POOR,
    STEEP,
    AlwaysSame,
    World,
    model_ms,
)
from treespec.draft.auto_policy import DETOUR_SHARE, MARGIN, AutoPolicy, Candidates
from treespec.draft.growth import TreeGrowth
from treespec.draft.policy import BestTreePolicy, PolicyRule, step_outcome
from treespec.metrics.acceptance import RankAcceptance, StepOutcome
from treespec.metrics.cost import CostModel, TimeCurve
from treespec.tree import Contract, Topology
from treespec.tree.search import best_topologies

# What is chosen.


def test_flat_costs_make_large_trees_and_steep_ones_none() -> None:
    flat, steep = World(FLAT, GOOD), World(STEEP, POOR)
    policies = [world.policy() for world in (flat, steep)]
    for world, policy in zip((flat, steep), policies, strict=True):
        world.serve(policy, 300)
        policy.steps_by_nodes.clear()
        world.serve(policy, 200)
    assert policies[0].steps_by_nodes.most_common(1)[0][0] >= 16
    assert policies[1].steps_by_nodes[1] > 190


def test_the_batch_size_of_the_step_decides() -> None:
    world = World(LAPTOP, GOOD)
    policy = world.policy()
    world.serve(policy, 300)
    nodes = []
    for batch_size in (1, 2, 4, 8, 32):
        world.serve(policy, 40, batch_size)
        policy.steps_by_nodes.clear()
        world.serve(policy, 40, batch_size)
        nodes.append(policy.steps_by_nodes.most_common(1)[0][0])
    assert nodes[0] > nodes[-2] > 1 and nodes[-1] == 1
    assert all(a >= b for a, b in pairwise(nodes))


@pytest.mark.parametrize("cost", [FLAT, LAPTOP, STEEP], ids=["flat", "laptop", "steep"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_candidates_are_judged_by_their_own_tokens_and_time(cost: CostModel, batch_size: int) -> None:
    acceptance = RankAcceptance(DEPTH, 4)
    table = acceptance.table()
    choice = Candidates(acceptance, NODES, DEPTH).best(cost, batch_size)
    nested = [best_topologies(table, NODES, depth) for depth in range(1, DEPTH + 1)]
    rates = {
        trees.expected_tokens[n - 1] / model_ms(cost, trees.topology(n), batch_size): (trees.topology(n), trees)
        for trees in nested
        for n in range(2, len(trees) + 1)
    }
    topology, trees = rates[max(rates)]
    assert len(choice.topology) == len(topology) and choice.topology.depth == topology.depth
    assert choice.model_ms == pytest.approx(model_ms(cost, choice.topology, batch_size))
    assert choice.expected_tokens == pytest.approx(trees.expected_tokens[len(topology) - 1])


# What it costs to find out.


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize(
    ("cost", "acceptance", "drag"),
    [(LAPTOP, (0.0,) * 8, 1.0), (STEEP, POOR, 1.0), (FLAT, GOOD, 4.0)],
    ids=["never accepted", "steep", "slower than the model says"],
)
def test_where_speculation_cannot_pay_it_costs_no_more_than_its_share(
    cost: CostModel, acceptance: tuple[float, ...], drag: float, batch_size: int
) -> None:
    world = World(cost, acceptance, drag, noise=0.05)
    plain_ms = world.expected_ms(ALONE, batch_size)
    assert world.best_ms(batch_size) == plain_ms
    policy = world.policy()
    world.serve(policy, 60, batch_size)
    assert world.serve(policy, 1500, batch_size) <= (1 + 1.2 * DETOUR_SHARE) * plain_ms


@pytest.mark.parametrize("seed", range(4))
def test_a_machine_disturbed_in_bursts_does_not_lead_astray(seed: int) -> None:
    world = World(STEEP, (0.3, 0.2, 0.1), noise=0.1, share_in_bursts=0.1, rng=random.Random(seed))
    policy = world.policy()
    world.serve(policy, 60)
    assert world.serve(policy, 1500) <= 1.03 * world.expected_ms(ALONE, 1)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("cost", [FLAT, LAPTOP, STEEP], ids=["flat", "laptop", "steep"])
@pytest.mark.parametrize("top", [0.3, 0.6, 0.9])
def test_what_is_chosen_is_near_the_best_fixed_tree_and_never_worse_than_none(
    cost: CostModel, top: float, batch_size: int
) -> None:
    world = World(cost, (top, (1 - top) * 0.4, (1 - top) * 0.1, 0.0, 0.0, 0.0, 0.0, 0.0))
    policy = world.policy()
    world.serve(policy, 200, batch_size)
    measured = world.serve(policy, 1000, batch_size)
    assert measured <= (1 + MARGIN) * world.best_ms(batch_size)
    assert measured <= (1 + 1.5 * DETOUR_SHARE) * world.expected_ms(ALONE, batch_size)


def test_time_that_the_model_misjudges_is_noticed() -> None:
    """By the model speculation gains a quarter; in truth such steps take so long that it loses a tenth."""
    modelled, world = World(LAPTOP, GOOD), World(LAPTOP, GOOD, drag=1.45)
    assert modelled.best_ms(8) < 0.8 * modelled.expected_ms(ALONE, 8)
    assert 0.85 < world.expected_ms(ALONE, 8) / (1.45 * modelled.best_ms(8)) < 0.95
    policy = world.policy()
    world.serve(policy, 100, 8)
    policy.steps_by_nodes.clear()
    world.serve(policy, 300, 8)
    assert policy.steps_by_nodes[1] > 285


def test_speculation_goes_on_above_a_margin_and_off_without_any_gain() -> None:
    cost = CostModel(TimeCurve((1, 2), (20.0, 29.0)), TimeCurve((1,), (1.0,)))  # a gain of (1 + a) * 20 / 30
    known = RankAcceptance(max_depth=1, max_width=1)
    world = World(cost, (1.0,))
    policy = AutoPolicy(cost, 2, 1, known, world.clock)

    def is_on_at(acceptance: float) -> bool:
        """After it became known, and a plan was due; what a step offered in the meantime weighs next to nothing."""
        known._tried_DK[:], known._accepted_DK[:] = 1e9, 1e9 * acceptance
        world.serve(policy, 40)
        policy.steps_by_nodes.clear()
        world.serve(policy, 100)
        return policy.steps_by_nodes[2] > 50

    assert [is_on_at(a) for a in (0.4, 0.55, 0.62, 0.55, 0.45, 0.55)] == [False, False, True, True, False, False]


def test_speculation_comes_back_when_it_begins_to_pay_and_goes_when_it_ends() -> None:
    world, batch_size = World(LAPTOP, POOR), 4
    policy = world.policy()

    def share_on(steps: int) -> float:
        policy.steps_by_nodes.clear()
        world.serve(policy, steps, batch_size)
        return 1 - policy.steps_by_nodes[1] / steps

    world.serve(policy, 300, batch_size)
    assert share_on(300) < 0.1
    world.acceptance = GOOD
    world.serve(policy, 400, batch_size)
    assert share_on(300) > 0.9
    world.acceptance = POOR
    world.serve(policy, 300, batch_size)
    assert share_on(300) < 0.1


def test_a_machine_that_slows_down_as_a_whole_goes_on_speculating() -> None:
    world = World(LAPTOP, GOOD)
    policy = world.policy()
    world.serve(policy, 300)
    world.cost = CostModel(_slowed(LAPTOP.target, 3), _slowed(DRAFT, 3))
    policy.steps_by_nodes.clear()
    world.serve(policy, 600)
    assert policy.steps_by_nodes[1] < 120


def _slowed(curve: TimeCurve, factor: float) -> TimeCurve:
    return TimeCurve(curve.rows, tuple(ms * factor for ms in curve.ms))


# The best tree of a size.


def test_the_best_tree_of_a_size_is_found() -> None:
    wide = (0.3, 0.28, 0.22, 0.1)  # unlike what is assumed before anything was seen
    world = World(LAPTOP, wide)
    policy = BestTreePolicy(8, DEPTH)
    first = policy.topology(1)
    assert len(first) == 8
    policy.observe([])
    world.serve(policy, 2000)
    best_ms = world.expected_ms(best_topologies([wide], 8, DEPTH).topology(8), 1)
    assert world.expected_ms(policy.topology(1), 1) <= 1.02 * best_ms < 0.9 * world.expected_ms(first, 1)


def test_measured_acceptance_is_used_from_the_first_step() -> None:
    known = RankAcceptance(DEPTH, 4)
    known.update([StepOutcome((4,), (0,))] * 300 + [StepOutcome((4,), (3,))] * 300)
    assert len(BestTreePolicy(6, 1, known).topology(1).children[0]) == 4


# From trees to outcomes.


def grown(topology: Topology, tokens: list[list[list[int]]], contract: Contract) -> TreeGrowth:
    growth = TreeGrowth(9, topology, max_depth=8)
    for level in tokens:
        growth.expand(level, contract, [0] * len(level))
    return growth


def test_ranks_are_the_order_of_proposal() -> None:
    proposals = grown(Topology.from_expansion((2, 2)), [[[7, 5]], [[1, 2], [3, 4]]], Contract.DETERMINISTIC).build(None)
    second = proposals.tree.children[0][5]
    assert step_outcome(proposals, [second, proposals.tree.children[second][3]]) == StepOutcome((2, 2), (1, 0))
    assert step_outcome(proposals, [second]) == StepOutcome((2, 2), (1,))
    assert step_outcome(proposals, []) == StepOutcome((2,), ())


def test_a_token_drawn_twice_has_the_rank_of_its_first_draw() -> None:
    growth = grown(Topology.from_expansion((4,)), [[[7, 5, 7, 3]]], Contract.IID)
    proposals = growth.build(None)
    ranks = {token: step_outcome(proposals, [proposals.tree.children[0][token]]) for token in (7, 5, 3)}
    assert ranks == {token: StepOutcome((4,), (rank,)) for token, rank in ((7, 0), (5, 1), (3, 3))}


def test_a_rule_grows_what_its_policy_chooses_and_tells_it_what_became_of_it() -> None:
    class Recording(AlwaysSame):
        seen: list[StepOutcome]

        def observe(self, outcomes: list[StepOutcome]) -> None:
            self.seen = outcomes

    policy = Recording(Topology.from_expansion((2, 1)))
    rule = PolicyRule(policy)
    growth = rule.begin(1)(9, 1)
    assert growth.widths() == [2]
    growth.expand([[4, 6]], Contract.DETERMINISTIC, [-1])
    assert not growth.frontier, "the request ends after one more level"
    rule.observe([growth.build(None)], [[2]])
    assert policy.seen == [StepOutcome((2,), (1,))]
