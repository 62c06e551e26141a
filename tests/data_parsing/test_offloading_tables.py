"""The offloading experiment: its long table, the artifact's own, and what was streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.data_parsing.built_tables import row_of, tables_of, write_all
from tests.data_parsing.record_files import SyntheticScenario, offloading_grid, server_grid

STREAMED: dict[str, str] = {}
INT8, RESIDENT = {"quantisation": "int8"}, {"offload": "false"}


def offloading_tables(tmp_path: Path, scenarios: list[SyntheticScenario]) -> dict[str, pd.DataFrame]:
    write_all(tmp_path, scenarios)
    return tables_of(tmp_path, scenarios)


def test_offloading_is_in_tables_of_its_own_with_the_columns_of_the_servers(tmp_path: Path) -> None:
    tables = offloading_tables(tmp_path, [*server_grid(batch_sizes=(1,)), *offloading_grid()])
    assert (len(tables["server"]), len(tables["offloading"])) == (3, 8)
    assert list(tables["server"].columns) == list(tables["offloading"].columns)
    assert tables["server"]["offload_bytes_per_step"].isna().all()


def test_the_artifacts_offloading_table_holds_its_own_setting_only(tmp_path: Path) -> None:
    """Sequence speculation, weights as they are stored and streamed; other placements would be taken for it."""
    scenarios = offloading_grid(settings=(STREAMED, INT8, RESIDENT))
    table = offloading_tables(tmp_path, scenarios)["offloading_small"]
    assert list(table.columns) == ["batch_size", "per_token_latency_ms"]
    (own,) = (scenario for scenario in scenarios if scenario.name == "offloading_small_4")
    latencies = [row["latency_us"] for row in own.rows()]
    assert list(table["batch_size"]) == [1, 4]
    assert table["per_token_latency_ms"][1] == pytest.approx(sum(latencies) / (128 * len(latencies) * 1000))
    own.jsonl(tmp_path / "raw").unlink()
    table = tables_of(tmp_path, scenarios)["offloading_small"]
    assert table.notna().to_numpy().tolist() == [[True, True], [True, False]]


def test_the_artifacts_offloading_table_of_a_platforms_own_lengths(tmp_path: Path) -> None:
    short = {"max_new_tokens": "32"}
    scenarios = offloading_grid(settings=(short, INT8 | short, RESIDENT | short))
    assert offloading_tables(tmp_path, scenarios)["offloading_small"].notna().all(axis=None)
    quantised = offloading_grid(settings=(INT8 | short,))
    assert "offloading_small" not in offloading_tables(tmp_path, quantised)


def test_speedups_are_over_incremental_decoding_of_the_same_placement(tmp_path: Path) -> None:
    streamed, int8 = (offloading_grid((1,), (settings,)) for settings in (STREAMED, INT8))
    int8 = [scenario.with_(step_us=10 * scenario.step_us) for scenario in int8]
    table = offloading_tables(tmp_path, [*streamed, *int8])["offloading"]
    for scenarios in (streamed, int8):
        by_mode = {scenario.mode: scenario for scenario in scenarios}
        assert row_of(table, by_mode["incremental"])["speedup"] == 1.0
        # 36 steps of 1000 against 9 of 1800.
        assert row_of(table, by_mode["tree_auto"])["speedup"] == pytest.approx(36 * 1000 / (9 * 1800))
    without = tables_of(tmp_path, [s for s in [*streamed, *int8] if s not in int8 or s.mode != "incremental"])[
        "offloading"
    ]
    assert list(without["speedup"].isna()) == [False] * 4 + [True] * 3, "another placement's is no baseline"


def test_streaming_is_told_per_step_and_second(tmp_path: Path) -> None:
    incremental, auto = (s for s in offloading_grid((1,), (INT8,)) if s.mode in ("incremental", "tree_auto"))
    table = offloading_tables(tmp_path, [incremental, auto])["offloading"]
    row = row_of(table, auto)
    assert (row["mode"], row["offload"], row["quantisation"]) == ("tree_auto", "disk", "int8")
    assert (row["resident_bytes"], row["streamed_bytes"], row["offload_bytes_per_step"]) == (1000, 3000, 3000.0)
    assert row["offload_bytes_per_s"] == pytest.approx(12000 / 100e-6)
    assert row["offload_wait_share"] == pytest.approx(0.6)
    assert row["draft_tokens_per_step"] == 60.0
    assert row_of(table, incremental)["draft_tokens_per_step"] == 0.0


def test_a_record_that_tells_nothing_of_streaming_has_blanks(tmp_path: Path) -> None:
    (scenario, *_) = offloading_grid((1,), (RESIDENT,), streamed_bytes=None)
    row = row_of(offloading_tables(tmp_path, [scenario])["offloading"], scenario)
    assert row["status"] == "ok" and pd.isna(row["offload"])
    told = ("resident_bytes", "streamed_bytes", "offload_bytes_per_step", "offload_bytes_per_s", "offload_wait_share")
    assert row[list(told)].isna().all()


@pytest.mark.parametrize("damage", [{"offload": [1]}, {"offload": {"resident_bytes": -1, "streamed_bytes": 2}}])
def test_damage_in_what_a_record_tells_of_streaming_is_its_status(tmp_path: Path, damage: dict[str, Any]) -> None:
    (scenario, *_) = offloading_grid((1,))
    scenario.write(tmp_path / "raw", **damage)
    row = row_of(tables_of(tmp_path, [scenario])["offloading"], scenario)
    assert row["status"] == "incomplete" and "not a" in row["detail"]
