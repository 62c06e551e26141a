"""What ``treespec explain`` concludes from made-up costs and acceptance, where the best choice is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from treespec.explain.explanation import drag_of, explain
from treespec.explain.observed import Observed, RequestCounts
from treespec.explain.prediction import (
    CountedAcceptance,
    Obstacle,
    Outlook,
    acceptance_per_level,
    outlook,
    predicted_tokens,
    step_ratio,
)
from treespec.explain.recommendation import recommendation
from treespec.explain.report import explanation_data, explanation_text, outlook_text
from treespec.metrics.acceptance import RankAcceptance, StepOutcome
from treespec.metrics.cost import CostModel, TimeCurve
from treespec.metrics.counts import RequestProfile
from treespec.tree import Topology

MAX_NODES, DEPTH = 64, 8
GOOD = (0.7, 0.15, 0.08, 0.03)  # of a thousand reached nodes, by rank
FLAT = TimeCurve((1,), (10.0,))
STEEP = TimeCurve((1, 1024), (10.0, 10.0 * 1024))  # every row as dear as the first
CHEAP = TimeCurve((1,), (0.01,))


def acceptance(rates: tuple[float, ...] = GOOD) -> CountedAcceptance:
    """The same at every depth, from so many observations that no prior is left in it."""
    accepted_DK = np.tile(np.round(np.array(rates) * 100_000).astype(int), (DEPTH, 1))
    return CountedAcceptance(np.full_like(accepted_DK, 100_000), accepted_DK)


def outlooks(target: TimeCurve, draft: TimeCurve, rates: tuple[float, ...] = GOOD) -> tuple[Outlook, ...]:
    return outlook(acceptance(rates), CostModel(target, draft), MAX_NODES, DEPTH, range(1, 17))


def test_free_verification_takes_the_largest_tree() -> None:
    for item in outlooks(FLAT, CHEAP):
        assert item.pays
        assert (item.num_nodes, item.is_chain) == (MAX_NODES, False)
        assert item.speedup > 3


def test_a_draft_as_dear_as_the_target_is_left_alone() -> None:
    found = outlooks(FLAT, FLAT)
    assert {item.obstacle for item in found} == {Obstacle.DRAFT}
    sentence = recommendation(found, CostModel(FLAT, FLAT))
    assert sentence.startswith("Decode incrementally: speculation does not pay at batch sizes 1 to 16")
    assert "the draft is too dear: one of its passes takes 1.00 of the target's" in sentence


def test_rows_that_all_cost_alike_are_not_verified() -> None:
    found = outlooks(STEEP, CHEAP)
    assert {item.obstacle for item in found} == {Obstacle.VERIFICATION}
    assert max(item.num_nodes for item in found) <= 3
    assert "verification is too dear: 2 rows per request take 2.00 times" in recommendation(
        found, CostModel(STEEP, CHEAP)
    )


def test_where_nothing_is_accepted_nothing_would_help() -> None:
    found = outlooks(FLAT, TimeCurve((1,), (1.0,)), (0.02, 0.01))
    assert {item.obstacle for item in found} == {Obstacle.ACCEPTANCE}
    assert "acceptance is too low" in recommendation(found, CostModel(FLAT, TimeCurve((1,), (1.0,))))


def test_moderate_rows_take_a_small_tree_and_only_small_batches() -> None:
    """Sixteen rows are free and every further one costs a pass: a chain of one token no longer fits at batch 16."""
    target = TimeCurve((1, 16, 17), (10.0, 10.0, 20.0))
    found = outlooks(target, CHEAP)
    pays = [item.batch_size for item in found if item.pays]
    assert pays == list(range(1, 9))
    for item in found[:8]:
        assert item.num_nodes * item.batch_size <= 16
    assert found[0].num_nodes == 16
    sentence = recommendation(found, CostModel(target, CHEAP))
    assert sentence.startswith("Speculate at batch sizes 1 to 8, at 1 with a tree of 15 nodes")
    assert "at batch size 9 verification is too dear" in sentence
    assert sentence.count(".") - sentence.count("0.") <= 3


def test_a_moderate_gain_is_taken_and_one_within_the_margin_is_not() -> None:
    for rate, pays in ((0.35, True), (0.25, True), (0.13, False)):
        found = outlooks(FLAT, TimeCurve((1,), (1.0,)), (rate,))
        gain = (1 + rate) / 1.1
        assert 1 < gain < 1.5
        assert {item.pays for item in found} == {pays}
        sentence = recommendation(found, CostModel(FLAT, TimeCurve((1,), (1.0,))))
        assert sentence.startswith("Speculate at batch sizes 1 to 16," if pays else "Decode incrementally")


@pytest.mark.parametrize(("target", "draft"), [(FLAT, CHEAP), (STEEP, CHEAP), (FLAT, TimeCurve((1,), (2.0,)))])
def test_no_expansion_beats_the_recommended_tree(target: TimeCurve, draft: TimeCurve) -> None:
    cost, found = CostModel(target, draft), outlooks(target, draft)
    table = acceptance().table()
    expansions = [[1] * d for d in range(1, 9)] + [[k] + [1] * d for k in (2, 3, 4) for d in range(8)]
    for item in found:
        for expansion in [*expansions, [4, 3, 2], [1, 1, 3, 1, 1, 1, 1, 1]]:
            topology = Topology.from_expansion(expansion)
            speedup = predicted_tokens(table, topology) / step_ratio(cost, item.batch_size, topology)
            assert speedup <= item.speedup * (1 + 1e-9), expansion


def test_a_chain_emits_the_geometric_sum() -> None:
    assert predicted_tokens(acceptance((0.5,)).table(), Topology.from_expansion([1, 1, 1])) == pytest.approx(
        1.875, abs=1e-3
    )


@pytest.mark.parametrize("depth", [1, 3, 8])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95, 1.0, 1.4])
def test_acceptance_per_level_is_the_sum_turned_round(depth: int, rate: float) -> None:
    tokens = sum(rate**level for level in range(depth + 1))
    assert acceptance_per_level(tokens, depth) == pytest.approx(rate, abs=1e-5)
    assert acceptance_per_level(1.0, depth) == acceptance_per_level(0.5, depth) == 0


def test_at_break_even_acceptance_the_speedup_is_one() -> None:
    cost = CostModel(TimeCurve((1, 64), (10.0, 40.0)), TimeCurve((1,), (2.0,)))
    chain = Topology.from_expansion([1] * 4)
    ratio = step_ratio(cost, 2, chain)
    needed = acceptance_per_level(ratio, chain.depth)
    assert 0 < needed < 1
    assert predicted_tokens(np.full((4, 1), needed), chain) / ratio == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("narrowest", "tolerance"), [(4, 1e-12), (1, 0.02)])
def test_counts_of_a_run_are_what_was_learnt_step_by_step(narrowest: int, tolerance: float) -> None:
    rng = np.random.default_rng(3)
    learnt, profile = RankAcceptance(3, 4), RequestProfile()
    for _ in range(5000):
        widths = [int(width) for width in rng.integers(narrowest, 5, size=3)]
        ranks: list[int] = []
        for width in widths:
            rank = int(rng.integers(0, 6))
            if rank >= width:
                break
            ranks.append(rank)
        outcome = StepOutcome(tuple(widths[: len(ranks) + 1]), tuple(ranks))
        learnt.update([outcome])
        profile.count(outcome)
    offered_DK, accepted_DK = (
        np.array([[*row, *[0] * (4 - len(row))] for row in rows]) for rows in (profile.offered, profile.accepted)
    )
    np.testing.assert_allclose(CountedAcceptance(offered_DK, accepted_DK).table(), learnt.table(), atol=tolerance)


def observed(name: str, expansion: list[int], ms_per_token: float, **part_us: int) -> Observed:
    """Ten steps of two requests that accept two tokens each where they draft."""
    accepted = 2 if expansion else 0
    tokens = 10 * (accepted + 1)
    offered = [[10] * width for width in expansion[: accepted + 1]]
    taken = [[10, *[0] * (width - 1)] for width in expansion[:accepted]] + [
        [0] * width for width in expansion[accepted : accepted + 1]
    ]
    requests = [
        RequestCounts(0, prompt, ms_per_token, tokens, 10, 10 * len(expansion), offered, taken) for prompt in (0, 1)
    ]
    scenario: dict[str, Any] = {
        "name": name,
        "mode": "tree" if expansion else "incremental",
        "expansion": expansion,
        "drafters": [],
        "max_requests_per_batch": 2,
        "prompts": "p.json",
    }
    parts = dict.fromkeys(("draft", "build", "forward", "verify", "commit", "other"), 0) | part_us
    return Observed(name, scenario, {"name": "p", "drafts": []}, {}, tuple(requests), parts, 10, {})


PLAIN = observed("plain", [], 10.0, forward=100_000)


@pytest.mark.parametrize(
    ("ms_per_token", "parts", "told"),
    [
        (5.0, {"forward": 120_000, "draft": 30_000}, "it pays: 3.00 tokens per step at 1.50 times the step; drafting"),
        (20.0, {"forward": 100_000, "draft": 500_000}, "it does not pay; drafting is too dear"),
        (20.0, {"forward": 550_000, "draft": 50_000}, "it does not pay; verifying is too dear"),
        (20.0, {"forward": 300_000, "draft": 240_000, "commit": 60_000}, "it does not pay; acceptance is too low"),
        (20.0, {"forward": 100_000, "other": 500_000}, "it does not pay; other work is too dear"),
        (20.0, {"forward": 100_000, "other": 500_000}, "83% of the time is other, where no model runs"),
    ],
)
def test_verdict_names_the_largest_cause(ms_per_token: float, parts: dict[str, int], told: str) -> None:
    explanation = explain(observed("tree", [1, 1, 1], ms_per_token, **parts), PLAIN)
    assert told in explanation.verdict
    assert explanation.speedup is not None
    assert explanation.speedup.median == pytest.approx(10 / ms_per_token)
    assert explanation.break_even_tokens == pytest.approx(3 * ms_per_token / 10)
    assert [(depth.depth, depth.num_reached, depth.rate) for depth in explanation.depths] == [
        (1, 20, 1.0),
        (2, 20, 1.0),
        (3, 20, 0.0),
    ]


def test_a_gain_that_does_not_count_is_told_beside_it() -> None:
    (found,) = outlook(acceptance(), CostModel(FLAT, CHEAP), MAX_NODES, DEPTH, [1])
    cases = [replace(found, obstacle=obstacle) for obstacle in (None, Obstacle.VERIFICATION)]
    worth = [replace(cases[1], tokens_per_step=gain * found.step_ratio) for gain in (1.04, 0.96)]
    paying, little, none = outlook_text([cases[0], *worth], 1.0).splitlines()[2:]
    assert paying.endswith("#")
    assert " 1.04 " in little
    assert little.endswith("verification is too dear; a gain below 5 % counts as none")
    assert none.endswith("verification is too dear")


@pytest.mark.parametrize(
    ("ms_per_token", "told"), [(5.0, "it pays, but of one sample"), (20.0, "it does not pay, but")]
)
def test_one_sample_has_no_interval(ms_per_token: float, told: str) -> None:
    tree, plain = (
        replace(several, requests=several.requests[:1])
        for several in (observed("tree", [1, 1, 1], ms_per_token, forward=120_000), PLAIN)
    )
    explanation = explain(tree, plain)
    assert explanation.verdict.startswith(told)
    assert f"speed-up            {10 / ms_per_token:.2f} over plain" in explanation_text(explanation)
    data = explanation_data(explanation)["speedup"]
    assert data["median"] == 10 / ms_per_token
    assert data["low"] is data["high"] is None


def test_without_costs_only_tokens_are_predicted() -> None:
    prediction = explain(observed("tree", [1, 1, 1], 5.0, forward=1), PLAIN).prediction
    assert prediction is not None
    assert prediction.speedup is None
    assert prediction.tokens_per_step == pytest.approx(2.8, abs=0.15)


def test_drag_is_what_the_model_missed_and_lowers_the_outlook() -> None:
    cost = CostModel(FLAT, TimeCurve((1,), (1.0,)))
    plain = observed("plain", [], 10.0, forward=100_000)
    trees = [replace(observed("tree", [1, 1, 1], ms, forward=1), costs={0: cost}) for ms in (4.0, 5.0, 8.0)]
    explanations = [explain(tree, plain) for tree in trees]
    prediction = explanations[1].prediction
    assert prediction is not None
    assert prediction.speedup is not None
    assert drag_of([*explanations, explain(plain, plain)]) == pytest.approx(prediction.speedup / 2.0)
    assert drag_of([]) == 1.0
    (with_drag,) = outlook(acceptance(), cost, MAX_NODES, DEPTH, [1], drag=1.25)
    (without,) = outlook(acceptance(), cost, MAX_NODES, DEPTH, [1])
    assert with_drag.speedup == pytest.approx(without.speedup / 1.25)
    (never,) = outlook(acceptance(), cost, MAX_NODES, DEPTH, [1], drag=10.0)
    assert not never.pays
