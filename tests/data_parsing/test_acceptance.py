"""What was accepted, by depth and rank and by length: values against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.data_parsing.built_tables import row_of, rows_of, tables_of, write_all
from tests.data_parsing.record_files import PEER, SyntheticScenario

# Twelve steps of two accepted tokens each; steps take ranks 1, 2, 3, 1, ... in turn.
TREE = SyntheticScenario("width_3", experiment="tree_width", expansion=(1, 3, 2), prompt_set="alpaca")
RANKS = SyntheticScenario("greedy", experiment="rank_success", expansion=(3, 3), num_repeats=1)


def cells(table: pd.DataFrame, *columns: str) -> list[list[float]]:
    return [list(map(float, line)) for line in table[list(columns)].to_numpy()]


def test_acceptance_is_counted_by_depth_and_rank(tmp_path: Path) -> None:
    write_all(tmp_path, [TREE])
    rows = rows_of(tables_of(tmp_path, [TREE])["acceptance"], TREE)
    steps = 8 * 12
    assert cells(rows, "depth", "rank", "num_offered", "num_accepted") == [
        [1, 1, steps, steps],
        [2, 1, steps, steps / 3],
        [2, 2, steps, steps / 3],
        [2, 3, steps, steps / 3],
        [3, 1, steps, 0],
        [3, 2, steps, 0],
    ]
    assert list(rows["rate"]) == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0, 0])
    # All requests are alike, so that no draw says anything else.
    assert list(rows["ci_low"]) == pytest.approx(list(rows["rate"]))
    assert set(rows["expansion"]) == {"1.3.2"} and set(rows["prompt_set"]) == {"alpaca"}


def test_the_interval_of_a_rate_holds_the_spread_over_prompts(tmp_path: Path) -> None:
    rows = TREE.rows()
    for row in rows:
        if row["prompt_index"] == 0:
            row["accepted_by_depth_and_rank"][0] = [0]
    TREE.write(tmp_path / "raw", rows=rows)
    first = rows_of(tables_of(tmp_path, [TREE])["acceptance"], TREE).loc[0]
    assert (first["num_accepted"], first["rate"]) == (72, 0.75)
    assert 0 <= first["ci_low"] < 0.75 < first["ci_high"] <= 1


def test_what_drafts_nothing_is_in_no_table_of_acceptance(tmp_path: Path) -> None:
    scenarios = [SyntheticScenario(), SyntheticScenario(PEER), SyntheticScenario("plain", experiment="tree_width")]
    write_all(tmp_path, scenarios)
    tables = tables_of(tmp_path, scenarios)
    assert [len(tables[name]) for name in ("acceptance", "accepted_lengths", "predictions")] == [0, 0, 0]


def test_a_record_that_was_offered_nothing_is_a_row_of_blanks(tmp_path: Path) -> None:
    empty = {"offered_by_depth_and_rank": [], "accepted_by_depth_and_rank": []}
    TREE.write(tmp_path / "raw", rows=[row | empty for row in TREE.rows()])
    row = row_of(tables_of(tmp_path, [TREE])["acceptance"], TREE)
    assert row["status"] == "ok" and pd.isna(row["depth"]) and pd.isna(row["rate"])


def test_success_rates_are_of_their_own_experiment_and_cumulative(tmp_path: Path) -> None:
    scenarios = [RANKS, TREE]
    write_all(tmp_path, scenarios)
    table = tables_of(tmp_path, scenarios)["success_rates"]
    assert set(table["scenario"]) == {RANKS.name}
    # Four requests of twelve steps; both depths are reached in each, and accepted by the ranks in turn.
    assert cells(table, "k", "num_tried") == [[1, 96], [2, 96], [3, 96]]
    assert list(table["success_rate"]) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert list(table["ci_high"]) == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_a_request_with_narrower_nodes_at_a_depth_does_not_count_there(tmp_path: Path) -> None:
    rows = RANKS.rows()
    # One of the twelve nodes of depth 1 had two proposals; which of the accepted ones is not known.
    rows[0]["offered_by_depth_and_rank"][1] = [12, 12, 11]
    rows[0]["accepted_by_depth_and_rank"][1] = [12, 0, 0]
    RANKS.write(tmp_path / "raw", rows=rows)
    table = tables_of(tmp_path, [RANKS])["success_rates"]
    assert list(table["num_tried"]) == [84] * 3
    assert list(table["success_rate"]) == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_accepted_lengths_are_a_distribution(tmp_path: Path) -> None:
    rows = TREE.rows()
    for row in rows:
        row["accepted_per_step"] = [0, 0, 3, 0, 1]
        row["num_accepted_tokens"] = 4
    TREE.write(tmp_path / "raw", rows=rows)
    table = rows_of(tables_of(tmp_path, [TREE])["accepted_lengths"], TREE)
    assert cells(table, "num_accepted", "num_steps", "share", "cumulative_share") == [
        [0, 16, 0.5, 0.5],
        [1, 8, 0.25, 0.75],
        [2, 0, 0.0, 0.75],
        [3, 8, 0.25, 1.0],
    ]


def test_requests_are_rows_with_their_category(tmp_path: Path) -> None:
    scenario = TREE.with_(categories=("code", None))
    write_all(tmp_path, [scenario])
    table = tables_of(tmp_path, [scenario, SyntheticScenario()])["requests"]
    assert len(table) == 8
    assert list(table["category"].fillna("-"))[:4] == ["code", "-", "code", "-"]
    assert list(table["repeat"]) == [0] * 4 + [1] * 4
    second = table.loc[1]
    assert (second["prompt_index"], second["num_output_tokens"], second["num_decoding_steps"]) == (1, 36, 12)
    assert second["tokens_per_step"] == 3.0
    assert second["latency_ms"] == pytest.approx(12 * 1.1)
    assert second["per_token_latency_ms"] == pytest.approx(12 * 1.1 / 36)


def test_a_request_that_generated_nothing_has_no_rates(tmp_path: Path) -> None:
    rows = TREE.rows()
    rows[0] |= {"output_token_ids": [], "num_output_tokens": 0, "accepted_per_step": [], "num_accepted_tokens": 0}
    TREE.write(tmp_path / "raw", rows=rows)
    tables = tables_of(tmp_path, [TREE])
    assert tables["requests"].loc[0, ["tokens_per_step", "per_token_latency_ms"]].isna().all()
    assert row_of(tables["tree_width"], TREE)["tokens_per_step"] == 3.0
