"""Measured step times and rank acceptance: what choosing a tree rests on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.decoding import Pair, prefill
from engine.tests.properties import examples
from treespec.kvcache.allocator import SlotAllocator
from treespec.metrics.acceptance import PRIOR, RankAcceptance, StepOutcome
from treespec.metrics.cost import CostModel, TimeCurve
from treespec.runner import ModelRunner
from treespec.serving.calibration import measure_cost, measure_curve
from treespec.tree import Topology
from treespec.tree.search import best_topologies

COST = CostModel(TimeCurve((1, 4, 8), (20.0, 20.0, 30.0)), TimeCurve((1, 8), (1.0, 1.7)), overhead_ms=0.5)

# Times.


def test_a_curve_is_linear_between_its_points_and_on_its_last_line_beyond_them() -> None:
    assert COST.target.at([1, 2, 4, 6, 8, 12, 16]).tolist() == [20, 20, 20, 25, 30, 40, 50]
    assert COST.target.at(0) == 0, "no pass"
    assert TimeCurve((1,), (3.0,)).at([1, 100]).tolist() == [3, 3]


@given(times=st.lists(st.floats(0.1, 100), min_size=1, max_size=8))
@examples(100)
def test_measured_curves_never_fall(times: list[float]) -> None:
    rows = [2**i for i in range(len(times))]
    curve = TimeCurve.measured(dict(zip(reversed(rows), reversed(times), strict=True)))
    assert curve.rows == tuple(rows)
    assert curve.ms == tuple(max(times[: i + 1]) for i in range(len(times)))
    assert (np.diff(curve.at(np.arange(1, 300))) >= -1e-9).all()


@pytest.mark.parametrize(
    ("rows", "ms"), [((2, 4), (1.0, 2.0)), ((1, 4, 4), (1.0, 2.0, 3.0)), ((1, 2), (2.0, 1.0)), ((1, 2), (0.0, 1.0))]
)
def test_curves_that_are_none_are_refused(rows: tuple[int, ...], ms: tuple[float, ...]) -> None:
    with pytest.raises(AssertionError):
        TimeCurve(rows, ms)


def test_a_step_is_its_draft_levels_its_target_pass_and_the_overhead() -> None:
    # Two requests with <1, 1, 3>: levels of one row each, 6 nodes, so 12 rows of the target.
    nested_rows = [1, 1, 1]
    assert COST.step_ms(2, 6, nested_rows) == pytest.approx(3 * 1.1 + 40 + 0.5)
    assert COST.step_ms(1, 1, [0, 0, 0]) == pytest.approx(20.5), "without a draft no level is run"
    many = COST.step_ms(2, np.array([1, 6]), np.array([[0, 0, 0], nested_rows]))
    assert many.tolist() == pytest.approx([20.5, 43.8])


def test_a_cost_model_survives_a_record() -> None:
    assert CostModel.from_dict(json.loads(json.dumps(COST.to_dict()))) == COST


# Measuring them.


class PlantedRunner:
    """A runner whose passes take planted times on a clock of its own."""

    def __init__(self, ms_by_rows: dict[int, float], num_regions: int, disturbed: float) -> None:
        self.allocator = SlotAllocator(num_regions, region_capacity=32)
        self.rows_of_passes: list[int] = []
        self.now = 0.0
        self._ms_by_rows = ms_by_rows
        self._disturbed = disturbed  # share of passes that take three times as long
        self._rng = np.random.default_rng(0)

    def reset(self) -> None:
        self.allocator = SlotAllocator(self.allocator.num_regions, self.allocator.region_capacity)

    def submit(self, rows: list) -> int:
        n = sum(len(row.token_ids) for row in rows)
        self.rows_of_passes.append(n)
        is_first = self.rows_of_passes.count(n) == 1
        is_disturbed = self._rng.random() < self._disturbed
        self.now += self._ms_by_rows[n] / 1000 * (50 if is_first else 3 if is_disturbed else 1)
        return n

    def result(self, n: int) -> SimpleNamespace:
        return SimpleNamespace(logits_RV=torch.zeros(n, 5))

    def commit(self, paths: list) -> None:
        for region, offsets in paths:
            self.allocator.commit(region, offsets)


def test_planted_times_are_found_behind_first_uses_and_disturbances() -> None:
    planted = {1: 1.0, 2: 1.0, 3: 1.5, 6: 2.0, 15: 2.5}
    runner = PlantedRunner(planted, num_regions=3, disturbed=0.2)
    curve = measure_curve(runner, 10, 10.0, lambda logits_RV: logits_RV.argmax(dim=-1), clock=lambda: runner.now)
    assert dict(zip(curve.rows, curve.ms, strict=True)) == pytest.approx(planted)
    assert runner.allocator.num_free_regions == 3


def test_passes_that_take_too_long_are_left_to_the_last_line() -> None:
    planted = {n: 10.0 * n for n in (1, 2, 4, 8, 16)}
    runner = PlantedRunner(planted, num_regions=1, disturbed=0.0)
    curve = measure_curve(runner, 16, 0.6, lambda logits_RV: logits_RV.argmax(dim=-1), clock=lambda: runner.now)
    assert curve.rows == (1, 2, 4, 8)  # four times a single row are worth looking at, however long they take
    assert curve.at(16) == pytest.approx(160)


def test_passes_that_take_long_whatever_their_rows_are_all_measured() -> None:
    """Offloaded weights: a curve that ended with its first point would promise that trees cost nothing at any size."""
    planted = {1: 500.0, 2: 500.0, 4: 510.0, 8: 900.0, 16: 2100.0}
    runner = PlantedRunner(planted, num_regions=1, disturbed=0.0)
    curve = measure_curve(runner, 16, 0.6, lambda logits_RV: logits_RV.argmax(dim=-1), clock=lambda: runner.now)
    assert dict(zip(curve.rows, curve.ms, strict=True)) == pytest.approx(planted)


def test_loaded_models_are_measured_and_left_idle(gqa: Pair) -> None:
    runners = [ModelRunner(model.decoder, num_regions=2, region_capacity=24) for model in (gqa.target, gqa.draft)]
    cost = measure_cost(*runners, max_nodes=8, seconds=0.1)
    for curve in (cost.target, cost.draft_level):
        assert curve.rows == (1, 2, 4, 8, 16)[: len(curve.rows)], "as far as passes are short"
    assert all(runner.allocator.num_free_regions == 2 for runner in runners)
    assert all(prefill(runner, range(5))[1].shape[0] == 5 for runner in runners)


# Rank acceptance.


def outcomes_of(topology: Topology, acceptance: np.ndarray, count: int, rng: np.random.Generator) -> list[StepOutcome]:
    """What verification makes of trees of ``topology`` if children are accepted as ``acceptance [D, K]`` says."""
    outcomes = []
    for _ in range(count):
        node, offered, ranks = 0, [], []
        while children := topology.children[node]:
            offered.append(len(children))
            row = acceptance[len(ranks), : len(children)]
            rank = int(np.searchsorted(np.cumsum(row), rng.random(), side="right"))
            if rank == len(children):
                break
            ranks.append(rank)
            node = children[rank]
        outcomes.append(StepOutcome(tuple(offered), tuple(ranks)))
    return outcomes


ACCEPTANCE = np.array([[0.6, 0.2, 0.05], [0.5, 0.1, 0.1], [0.8, 0.1, 0.02], [0.3, 0.3, 0.1]])


@pytest.mark.parametrize("memory", [None, 2000.0])
def test_estimates_converge_whatever_trees_they_are_seen_through(memory: float | None) -> None:
    rng = np.random.default_rng(1)
    estimate = RankAcceptance(4, 3, memory)
    shapes = [Topology.from_expansion(widths) for widths in [(3, 3, 3, 3), (1, 2, 3, 1), (2, 1, 1, 3)]]
    for step in range(9000):
        estimate.update(outcomes_of(shapes[step % 3], ACCEPTANCE, 2, rng))
    assert np.abs(estimate.table() - ACCEPTANCE).max() < (0.02 if memory is None else 0.07)


def test_a_memory_forgets_and_a_weight_counts_several_times() -> None:
    hit, miss = StepOutcome((1,), (0,)), StepOutcome((1,), ())
    remembering, forgetting, weighty = (RankAcceptance(1, 1, memory) for memory in (None, 50.0, 50.0))
    for outcome in [*[miss] * 500, *[hit] * 100]:
        remembering.update([outcome])
        forgetting.update([outcome])
    for outcome in [*[miss] * 125, *[hit] * 25]:
        weighty.update([outcome], weight=4.0)
    assert remembering.table()[0, 0] == pytest.approx(100 / 600, abs=0.02)
    assert 0.75 < forgetting.table()[0, 0] < 0.9  # 1 - exp(-2) of the weight is on the hits
    assert weighty.table()[0, 0] == pytest.approx(forgetting.table()[0, 0], abs=0.02)


def test_before_anything_is_seen_the_prior_holds_and_unseen_ranks_share_what_is_left() -> None:
    table = RankAcceptance(3, 2).table()
    assert table[:, 0].tolist() == pytest.approx([PRIOR[0]] * 3)
    assert table[:, 1].tolist() == pytest.approx([PRIOR[1] * (1 - PRIOR[0])] * 3)
    certain = RankAcceptance(3, 8)
    certain.update([StepOutcome((1, 1, 1), (0, 0, 0))] * 2000)
    assert certain.table()[0, 0] > 0.99 and certain.table()[0, 1] < 0.01, "the second had no chance to be seen"
    assert len(best_topologies(certain.table(), 4, 3).topology(4).children[0]) == 1


def test_a_depth_that_was_not_seen_leans_on_the_others() -> None:
    estimate = RankAcceptance(4, 1)
    estimate.update([StepOutcome((1,), ())] * 900 + [StepOutcome((1,), (0,))] * 100)
    assert estimate.table()[3, 0] == pytest.approx(0.1, abs=0.01)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
@examples(60)
def test_estimates_are_probabilities(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    estimate = RankAcceptance(3, 2, memory=20.0)
    rows = rng.dirichlet(np.full(4, 0.3), size=5)[:, :3]
    estimate.update(outcomes_of(Topology.from_expansion((3, 2, 1, 1)), rows, count, rng), weight=2.0)
    assert (estimate.table() >= 0).all() and (estimate.table().sum(axis=1) <= 1 + 1e-12).all()


@pytest.mark.parametrize(("offered", "ranks"), [((1,), (1,)), ((), (0,)), ((2, 2), ()), ((0,), ())])
def test_outcomes_that_cannot_be_are_refused(offered: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        StepOutcome(offered, ranks)
