"""Tables are read into typed rows; what a table lacks or has wrong is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from figures.errors import FigureError
from figures.reading.cells import Measured
from figures.reading.published import (
    PublishedSampling,
    read_published_sampling,
    read_published_success,
    read_published_tokens_per_step,
)
from figures.reading.tables import read_requests, read_scenarios, read_success_rates
from tests.figures.drawn import PAPER_DIR
from tests.figures.paper_tables import all_tables, width_rows, without_record, write_paper_tables
from tests.figures.table_files import every_placement, offloading_grid, write_tables


def test_a_scenario_with_all_its_measures(tmp_path: Path) -> None:
    tables = {"tree_width": [row | {"selection": "iid", "verifier": "mss"} for row in width_rows(("piqa",))]}
    (row, *_) = [
        row
        for row in read_scenarios(write_paper_tables(tmp_path, tables), "tree_width")
        if row.scenario.mode == "stochastic_width_4_first"
    ]
    scenario = row.scenario
    assert (scenario.prompt_set, scenario.decoding, scenario.expansion) == ("piqa", "stochastic", "4.1.1.1.1.1.1.1")
    assert (scenario.tree_width, scenario.branching_step) == (4, 1)
    assert (scenario.selection, scenario.verifier, scenario.tree_layout) == ("iid", "mss", "tree")
    assert row.tokens_per_step is not None and row.tokens_per_step.low < row.tokens_per_step.value
    assert row.latency_ms == Measured(1.0, 0.9, 1.2) and row.streamed_bytes is None


def test_chains_have_no_branching_step_and_no_record_no_measures(tmp_path: Path) -> None:
    tables = {"tree_width": [without_record(row) for row in width_rows(("piqa",))]}
    row = read_scenarios(write_paper_tables(tmp_path, tables), "tree_width")[0]
    assert (row.scenario.tree_width, row.scenario.branching_step) == (1, None)
    assert (row.latency_ms, row.tokens_per_step, row.speedup, row.acceptance_rate) == (None, None, None, None)


def test_streamed_bytes_are_read_where_the_table_has_them(tmp_path: Path) -> None:
    rows = [row | {"streamed_bytes": 377487360} for row in every_placement(offloading_grid((1,)))]
    assert {row.streamed_bytes for row in read_scenarios(write_tables(tmp_path, rows), "offloading")} == {377487360}


def test_rates_and_requests_belong_to_scenarios(tmp_path: Path) -> None:
    csv_dir = write_paper_tables(tmp_path, all_tables())
    planned = {row.scenario.name for row in read_scenarios(csv_dir, "rank_success")}
    assert {row.scenario for row in read_success_rates(csv_dir)} == planned
    assert {row.k for row in read_success_rates(csv_dir)} == {1, 2, 3, 4, 5}
    assert {row.scenario for row in read_requests(csv_dir)} <= {
        row.scenario.name for row in read_scenarios(csv_dir, "tree_width")
    }


def read_both(csv_dir: Path) -> None:
    read_scenarios(csv_dir, "tree_width")
    read_requests(csv_dir)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("tree_width", "branching_step", "other", "tree_width.csv: columns are missing: branching_step"),
        ("tree_width", ",1.1.3.1.1.1.1.1,3,", ",1.1.3.1.1.1.1.1,wide,", "tree_width is not a number: 'wide'"),
        ("requests", ",40,", ",,", "requests.csv:2: num_decoding_steps is blank"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path: Path, table: str, old: str, new: str, message: str) -> None:
    csv_dir = write_paper_tables(tmp_path, all_tables())
    path = csv_dir / f"{table}.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(FigureError, match=message):
        read_both(csv_dir)


def test_published_tables_by_our_names_of_the_prompt_sets() -> None:
    success, tokens = read_published_success(PAPER_DIR), read_published_tokens_per_step(PAPER_DIR)
    assert (len(success), len(tokens)) == (50, 50)
    assert success["stochastic", "chatbot", 5] == pytest.approx(0.97)
    assert tokens["greedy", "chatgpt", 2] == 3.24
    assert read_published_sampling(PAPER_DIR)["webqa"] == PublishedSampling(naive=1.73, multi_step=2.21)


def test_a_published_dataset_that_is_unknown_is_told(tmp_path: Path) -> None:
    (tmp_path / "table3_sampling_verified_tokens.csv").write_text(
        "dataset,naive_sampling,multi_step_speculative_sampling\nOther,1,2\n", encoding="utf-8"
    )
    with pytest.raises(FigureError, match="csv:2: dataset is 'Other', allowed: CIP, CP, WebQA, Alpaca, PIQA"):
        read_published_sampling(tmp_path)
