"""One damaged record is a row with its status in every table, and leaves the rows of the others as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.data_parsing.built_tables import row_of, rows_of, tables_of, write_all
from tests.data_parsing.record_files import COSTS, SyntheticScenario

SOUND = SyntheticScenario("greedy", experiment="rank_success", expansion=(3, 3), costs={"0": COSTS})
BROKEN = SOUND.with_(mode="greedy_wide", expansion=(5, 5))
OF_SCENARIOS = ("rank_success", "time_split", "token_equality", "acceptance", "success_rates")
TABLES = (*OF_SCENARIOS, "accepted_lengths", "predictions")


def cut_rows(raw_dir: Path) -> None:
    path = BROKEN.jsonl(raw_dir)
    path.write_bytes(path.read_bytes()[:-300])


def change_row(**changes: Any) -> Callable[[Path], None]:
    rows = BROKEN.rows()
    rows[5] |= changes
    return lambda raw_dir: BROKEN.write(raw_dir, rows=rows)


def drop(key: str) -> Callable[[Path], None]:
    rows = [{name: value for name, value in row.items() if name != key} for row in BROKEN.rows()]
    return lambda raw_dir: BROKEN.write(raw_dir, rows=rows)


def change_costs(**changes: Any) -> Callable[[Path], None]:
    return lambda raw_dir: BROKEN.write(raw_dir, costs={"0": COSTS | changes})


def curve(rows: list[Any], ms: list[Any]) -> dict[str, Any]:
    return {"target": {"rows": rows, "ms": ms}}


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no JSON": lambda raw_dir: BROKEN.meta_json(raw_dir).write_text("{"),
    "deep JSON": lambda raw_dir: BROKEN.jsonl(raw_dir).write_text("[" * 100000),
    "cut rows": cut_rows,
    "counts that do not sum": change_row(num_accepted_tokens=1),
    "accepted more than offered": change_row(accepted_by_depth_and_rank=[[99, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
    "accepted elsewhere than offered": change_row(accepted_by_depth_and_rank=[[1, 0, 0]]),
    "offers of no list": change_row(offered_by_depth_and_rank={"0": 1}),
    "offers of no counts": change_row(offered_by_depth_and_rank=[[1.5] * 5, [1] * 5]),
    "category of no text": change_row(category=7),
    "no offers": drop("offered_by_depth_and_rank"),
    "no acceptance": drop("accepted_by_depth_and_rank"),
    "costs of no object": lambda raw_dir: BROKEN.write(raw_dir, costs=[1]),
    "costs of no model": lambda raw_dir: BROKEN.write(raw_dir, costs={"0": None}),
    "costs without a part": lambda raw_dir: BROKEN.write(raw_dir, costs={"0": {"target": COSTS["target"]}}),
    "costs of nothing": change_costs(**curve([], [])),
    "costs of other lengths": change_costs(**curve([1, 2], [1.0])),
    "costs from two rows on": change_costs(**curve([2, 4], [1.0, 2.0])),
    "costs out of order": change_costs(**curve([1, 4, 2], [1.0, 2.0, 3.0])),
    "costs that fall": change_costs(**curve([1, 2], [2.0, 1.0])),
    "costs without time": change_costs(**curve([1, 2], [0.0, 1.0])),
    "costs that are no number": change_costs(**curve([1, 2], [1.0, float("nan")])),
    "endless overhead": change_costs(overhead_ms=float("inf")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_a_status_and_nobody_elses(tmp_path: Path, damage: str) -> None:
    write_all(tmp_path, [SOUND, BROKEN])
    DAMAGES[damage](tmp_path / "raw")
    tables = tables_of(tmp_path, [SOUND, BROKEN])
    alone = tables_of(tmp_path, [SOUND])
    for name in TABLES:
        row = row_of(tables[name], BROKEN)
        assert row["status"] == "incomplete", name
        pd.testing.assert_frame_equal(rows_of(tables[name], SOUND), rows_of(alone[name], SOUND))
    for name in ("requests", "verify_costs"):
        pd.testing.assert_frame_equal(tables[name], alone[name])
    assert row_of(tables["predictions"], BROKEN)["detail"]


def test_the_damaged_record_counts_when_whole(tmp_path: Path) -> None:
    """So that each damage above is what makes it incomplete."""
    write_all(tmp_path, [SOUND, BROKEN])
    tables = tables_of(tmp_path, [SOUND, BROKEN])
    assert {status for name in TABLES for status in rows_of(tables[name], BROKEN)["status"]} == {"ok"}
    assert tables["predictions"]["predicted_tokens_per_step"].notna().tolist() == [True, False]


def test_scenarios_without_any_record_are_rows_of_every_table(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, [SOUND])
    for name in TABLES:
        assert row_of(tables[name], SOUND)["status"] == "missing"
    assert len(tables["requests"]) == len(tables["verify_costs"]) == 0
