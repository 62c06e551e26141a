"""``measure_costs``: what passes cost is in the records, measured where anything is served, and changes no record."""

from __future__ import annotations

from typing import Any

import pytest

from engine.tests.decoding import Pair
from engine.tests.jobs import JobFolder
from engine.tests.scenarios import Bench, scenario
from treespec.metrics.cost import CostModel, TimeCurve
from treespec.runner import ModelRunner
from treespec.serving import shapes

COST = CostModel(TimeCurve((1, 64), (1.0, 2.0)), TimeCurve((1, 64), (0.5, 1.0)))
Measured = list[tuple[ModelRunner, int]]  # draft and size


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """What was measured; costs are made up."""
    calls: Measured = []

    def note(target: ModelRunner, draft: ModelRunner, max_nodes: int) -> CostModel:
        calls.append((draft, max_nodes))
        return COST

    monkeypatch.setattr(shapes, "measure_cost", note)
    return calls


def sizes(gqa: Pair, measured: Measured, scenarios: list[dict[str, Any]], **placement: Any) -> dict[int, int]:
    """Draft model -> largest pass per request that is measured."""
    measured.clear()
    loaded = Bench.of(gqa, scenarios, **{"measure_costs": True} | placement).loaded
    assert set(loaded.shapes.costs.values()) <= {COST}
    size_of = dict(measured)
    assert len(size_of) == len(measured) == len(loaded.shapes.costs), "every pair once"
    return {model: size_of[loaded.draft_runners[model]] for model in loaded.shapes.costs}


def test_every_draft_in_use_is_measured_up_to_its_largest_tree(gqa: Pair, measured: Measured) -> None:
    wide = scenario("wide", "tree") | {"drafters": [{"kind": "ssm", "expansion": [3, 3, 2]}]}  # 31 nodes
    both = [scenario("chain", "chain"), wide, scenario("two", "two-models")]
    assert sizes(gqa, measured, both) == {0: 31, 1: 22}, "22 of each of three requests are 64 rows"
    assert sizes(gqa, measured, [scenario("chain", "chain", max_requests_per_batch=16)]) == {0: 5}
    assert sizes(gqa, measured, [scenario("chain", "chain")], max_sequence_length=21, max_tree_nodes=5) == {0: 22}
    short = {"max_sequence_length": 12, "max_tree_nodes": 5}
    assert sizes(gqa, measured, [scenario("chain", "chain", max_new_tokens=4)], **short) == {0: 16}, "what a region has"


def test_sequences_are_measured_as_the_rows_they_take(gqa: Pair, measured: Measured) -> None:
    drafters = {"drafters": [{"kind": "ssm", "expansion": [4, 1, 1, 1]}]}  # 17 nodes, 20 tokens on its paths
    plain = scenario("tree", "tree", max_requests_per_batch=6) | drafters
    assert sizes(gqa, measured, [plain]) == {0: 17}
    assert sizes(gqa, measured, [plain, plain | {"name": "s", "tree_layout": "sequences"}]) == {0: 20}


def test_without_a_draft_model_or_the_word_nothing_is_measured(gqa: Pair, measured: Measured) -> None:
    assert sizes(gqa, measured, [scenario("plain"), scenario("ngram", "ngram")]) == {}
    assert sizes(gqa, measured, [scenario("tree", "tree")], measure_costs=False) == {}
    assert sizes(gqa, measured, [scenario("auto", "auto")], measure_costs=False) == {0: 9}


def test_records_hold_the_costs_and_stay_current_without(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    job.placement["measure_costs"] = True
    job.scenarios = job.scenarios[2:]
    assert job.run() == 0
    (costs,) = job.meta(job.names[0])["costs"].items()
    assert costs[0] == "0"
    found = CostModel.from_dict(costs[1])
    for curve in (found.target, found.draft_level):
        assert curve.rows == (1, 2, 4, 8, 16, 32, 64)[: len(curve.rows)] and len(curve.rows) > 1

    def fail(*arguments: object) -> CostModel:
        raise AssertionError("nothing is missing, and nothing is to be measured")

    monkeypatch.setattr(shapes, "measure_cost", fail)
    before = job.snapshot()
    assert job.run() == 0
    job.placement["measure_costs"] = False
    assert job.run() == 0
    assert job.snapshot() == before
