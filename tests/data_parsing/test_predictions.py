"""Predictions are the model's, from another record: against simulation, the engine's cost model and sums by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_parsing.plans.plan_drafting import PlannedDrafting
from data_parsing.records.record_costs import read_costs
from data_parsing.tables.tree_model import expected_speedup, expected_tokens_per_step
from tests.data_parsing.built_tables import row_of, tables_of, write_all
from tests.data_parsing.record_files import COSTS, SyntheticScenario
from treespec.metrics.cost import CostModel
from treespec.tree import Topology

RATES = np.array([0.5, 0.2, 0.1])
WIDE = SyntheticScenario("greedy", experiment="rank_success", expansion=(3, 3), prompt_set="piqa")
NARROW = SyntheticScenario("width_2", experiment="tree_width", expansion=(1, 2, 1), prompt_set="piqa", batch_size=2)


def simulated_steps(generator: np.random.Generator, expansion: tuple[int, ...], num_tokens: int) -> int:
    """Decoding steps of one request whose proposals are accepted by RATES."""
    num_steps, remaining = 0, num_tokens - 1
    while remaining:
        accepted = 0
        for width in expansion[: remaining - 1]:
            if generator.random() >= RATES[:width].sum():
                break
            accepted += 1
        remaining -= accepted + 1
        num_steps += 1
    return num_steps


@pytest.mark.parametrize(("expansion", "num_tokens"), [((1, 3, 1), 24), ((2, 2), 3), ((3,) * 8, 5), ((1,), 2)])
def test_tokens_per_step_are_those_of_a_simulation(expansion: tuple[int, ...], num_tokens: int) -> None:
    generator = np.random.default_rng(0)
    steps = [simulated_steps(generator, expansion, num_tokens) for _ in range(4000)]
    expected = expected_tokens_per_step(RATES, expansion, num_tokens)
    assert (num_tokens - 1) / np.mean(steps) == pytest.approx(expected, rel=0.02)


def test_tokens_per_step_of_endless_outputs_sum_the_products_of_rates() -> None:
    # 1 + 0.5 + 0.5 * 0.8 + 0.5 * 0.8 * 0.5
    assert expected_tokens_per_step(RATES, (1, 3, 1), 20000) == pytest.approx(2.1, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_speedups_use_the_costs_as_the_engine_does(batch_size: int) -> None:
    expansion = (2, 1, 3)
    drafting = PlannedDrafting(1, expansion, "top_k", 0)
    (costs,) = read_costs({"costs": {"0": COSTS | {"overhead_ms": 0.25}}}).values()
    model = CostModel.from_dict(COSTS | {"overhead_ms": 0.25})
    topology = Topology.from_expansion(expansion)
    level_rows = np.bincount(topology.depths)[:-1]
    step_ms = model.step_ms(batch_size, len(topology), level_rows)
    expected = float(model.target.at(batch_size) * 2.0 / step_ms)
    assert expected_speedup(2.0, drafting, costs, batch_size, as_sequences=False) == pytest.approx(expected)
    # Six paths of four nodes each, the root among them.
    step_ms = model.step_ms(batch_size, 6 * 4, level_rows)
    expected = float(model.target.at(batch_size) * 2.0 / step_ms)
    assert expected_speedup(2.0, drafting, costs, batch_size, as_sequences=True) == pytest.approx(expected)


def test_a_row_has_the_prediction_beside_what_was_measured(tmp_path: Path) -> None:
    narrow = NARROW.with_(costs={"0": COSTS}, accepted_per_step=1)
    incremental = NARROW.with_(mode="incremental", expansion=())
    scenarios = [WIDE, narrow, incremental]
    write_all(tmp_path, scenarios)
    tables = tables_of(tmp_path, scenarios)
    row = row_of(tables["predictions"], narrow)
    # WIDE reaches two depths in every step and accepts by three ranks in turn: a third by each.
    predicted = expected_tokens_per_step(np.full(3, 1 / 3), (1, 2, 1), 36)
    assert row["predicted_tokens_per_step"] == pytest.approx(predicted)
    assert (row["measured_tokens_per_step"], row["num_nodes"]) == (2.0, 5.0)
    # Two requests with six rows each; the draft runs the root, one and two nodes of each.
    step_ms = np.interp(12, [4, 16], [11, 20]) + 0.6 + 0.6 + 0.8
    assert row["predicted_speedup"] == pytest.approx(np.interp(2, [1, 4], [10, 11]) * predicted / step_ms)
    long = row_of(tables["tree_width"], narrow)
    for own, of_table in (
        ("measured_speedup", "speedup"),
        ("measured_ci_low", "speedup_ci_low"),
        ("measured_ci_high", "speedup_ci_high"),
    ):
        assert row[own] == long[of_table] > 1


def test_no_prediction_comes_from_the_scenario_itself_or_a_narrower_one(tmp_path: Path) -> None:
    write_all(tmp_path, [WIDE, NARROW])
    alone = tables_of(tmp_path, [WIDE])["predictions"]
    assert pd.isna(row_of(alone, WIDE)["predicted_tokens_per_step"])
    assert row_of(alone, WIDE)["measured_tokens_per_step"] == 3.0
    both = tables_of(tmp_path, [NARROW, WIDE])["predictions"]
    assert pd.isna(row_of(both, WIDE)["predicted_tokens_per_step"]), "the other has seen two ranks of three"
    assert row_of(both, NARROW)["predicted_tokens_per_step"] > 1
    assert both["predicted_speedup"].isna().all(), "no costs were measured"


@pytest.mark.parametrize(
    "other", [{"prompt_set": "alpaca"}, {"temperature": 1.0}, {"selection": "iid"}, {"draft": "x"}, {"target": "x"}]
)
def test_no_prediction_comes_from_where_ranks_mean_something_else(tmp_path: Path, other: dict[str, object]) -> None:
    wide = WIDE.with_(**other)
    write_all(tmp_path, [wide, NARROW])
    row = row_of(tables_of(tmp_path, [wide, NARROW])["predictions"], NARROW)
    assert pd.isna(row["predicted_tokens_per_step"])


def test_the_widest_record_predicts(tmp_path: Path) -> None:
    chain = NARROW.with_(mode="width_1", expansion=(1, 1, 1), accepted_per_step=1)
    scenarios = [chain, NARROW, WIDE]
    write_all(tmp_path, scenarios)
    row = row_of(tables_of(tmp_path, scenarios)["predictions"], chain)
    assert row["predicted_tokens_per_step"] == pytest.approx(expected_tokens_per_step(np.array([1 / 3]), (1, 1, 1), 36))


def test_of_equally_wide_records_the_one_that_has_seen_most_predicts(tmp_path: Path) -> None:
    # Reached but never accepted at the depth that is wide, and fewer steps in all.
    few = WIDE.with_(mode="few", expansion=(1, 3), accepted_per_step=1, num_repeats=1)
    chain = NARROW.with_(mode="width_1", expansion=(1, 1, 1))
    scenarios = [few, chain, WIDE]
    write_all(tmp_path, scenarios)
    row = row_of(tables_of(tmp_path, scenarios)["predictions"], chain)
    assert row["predicted_tokens_per_step"] == pytest.approx(expected_tokens_per_step(np.array([1 / 3]), (1, 1, 1), 36))


def test_no_prediction_comes_from_the_same_tree_at_another_batch_size(tmp_path: Path) -> None:
    scenarios = [NARROW, NARROW.with_(batch_size=4)]
    write_all(tmp_path, scenarios)
    assert tables_of(tmp_path, scenarios)["predictions"]["predicted_tokens_per_step"].isna().all()


def test_a_tree_planned_by_ranks_predicts_where_no_fixed_one_is_wide_enough(tmp_path: Path) -> None:
    chain = SyntheticScenario("sequence")
    auto = SyntheticScenario("tree_auto")
    write_all(tmp_path, [chain, auto])
    row = row_of(tables_of(tmp_path, [chain, auto])["predictions"], chain)
    # It accepts three of the four that it offers, one below the other.
    assert row["predicted_tokens_per_step"] == pytest.approx(expected_tokens_per_step(np.array([0.75]), (1,) * 4, 36))
    fixed = SyntheticScenario("tree", expansion=(1, 1), accepted_per_step=1)
    write_all(tmp_path, [fixed])
    row = row_of(tables_of(tmp_path, [chain, auto, fixed])["predictions"], chain)
    # One of two; the other has been offered as many.
    assert row["predicted_tokens_per_step"] == pytest.approx(expected_tokens_per_step(np.array([0.5]), (1,) * 4, 36))


def test_a_tree_without_a_fixed_shape_is_told_by_its_mean_size(tmp_path: Path) -> None:
    scenario = SyntheticScenario("tree_auto")
    write_all(tmp_path, [scenario, WIDE])
    row = row_of(tables_of(tmp_path, [scenario, WIDE])["predictions"], scenario)
    assert (row["num_nodes"], row["measured_tokens_per_step"]) == (60.0, 4.0)
    assert pd.isna(row["expansion"]) and pd.isna(row["predicted_tokens_per_step"])


def test_one_curve_per_placement_that_measured_its_costs(tmp_path: Path) -> None:
    scenarios = [
        NARROW,
        NARROW.with_(mode="width_3", expansion=(3,), costs={"0": COSTS, "1": COSTS}),
        WIDE.with_(placement="other", costs={"0": COSTS}, settings={"quantisation": "int8"}),
        WIDE.with_(placement="third"),
    ]
    write_all(tmp_path, scenarios)
    table = tables_of(tmp_path, scenarios)["verify_costs"]
    assert list(table["placement"].drop_duplicates()) == ["one_rank", "other"]
    own = table[table["placement"] == "other"]
    assert list(own["part"]) == ["target"] * 3 + ["draft_level"] * 2
    assert list(own["rows"]) == [1, 4, 16, 1, 8]
    assert list(own["ratio"]) == pytest.approx([1.0, 1.1, 2.0, 1.0, 2.4])
    assert set(own["quantisation"]) == {"int8"} and set(own["device"]) == {"Example CPU @ 2.0GHz"}
    assert own["target_description"].notna().all()
