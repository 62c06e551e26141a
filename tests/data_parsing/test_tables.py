"""The tables say what the records hold: values against sums done by hand, blanks where nothing counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from data_parsing.plan import load_plans
from data_parsing.records import read_records
from data_parsing.tables import build_tables
from tests.data_parsing.record_files import PEER, SyntheticScenario, offloading_grid, server_grid, write_plan


def tables_of(tmp_path: Path, scenarios: list[SyntheticScenario]) -> dict[str, pd.DataFrame]:
    """The tables of a plan of the scenarios over what lies in ``raw``."""
    plan = load_plans([write_plan(tmp_path / "plan.json", scenarios)])
    return build_tables(read_records(tmp_path / "raw", plan))


def row_of(table: pd.DataFrame, scenario: SyntheticScenario) -> pd.Series:
    """The one row of a scenario."""
    (row,) = (row for _, row in table.iterrows() if row["scenario"] == scenario.name)
    return row


def write_all(tmp_path: Path, scenarios: list[SyntheticScenario]) -> None:
    """Write the records of the scenarios into ``raw``."""
    for scenario in scenarios:
        scenario.write(tmp_path / "raw")


def test_artifact_table_has_the_artifacts_columns_and_formula(tmp_path: Path) -> None:
    scenarios = server_grid()
    write_all(tmp_path, scenarios)
    tables = tables_of(tmp_path, scenarios)
    assert "server_medium" not in tables
    table = tables["server_small"]
    assert list(table.columns) == [
        "batch_size",
        "incr_dec_per_token_latency_ms",
        "sequence_specinfer_per_token_latency_ms",
        "tree_specinfer_per_token_latency_ms",
    ]
    assert list(table["batch_size"]) == [1, 2, 4, 8]
    latencies = [row["latency_us"] for row in scenarios[0].rows()]
    expected = sum(latencies) / (128 * len(latencies) * 1000)
    assert table["incr_dec_per_token_latency_ms"][0] == pytest.approx(expected)


def test_artifact_table_is_blank_where_no_record_counts(tmp_path: Path) -> None:
    scenarios = server_grid(batch_sizes=(1, 2))
    scenarios[0].write(tmp_path / "raw")
    scenarios[1].write(tmp_path / "raw", num_rows=99)
    table = tables_of(tmp_path, scenarios)["server_small"]
    assert table.notna().to_numpy().tolist() == [[True, True, False, False], [True, False, False, False]]


def test_artifact_table_leaves_other_settings_out(tmp_path: Path) -> None:
    plain = SyntheticScenario(mode="tree")
    wide = plain.with_(settings={"expansion": "5"}, step_us=9000.0)
    write_all(tmp_path, [plain, wide])
    alone = tables_of(tmp_path, [plain])["server_small"]
    both = tables_of(tmp_path, [wide, plain])["server_small"]
    pd.testing.assert_frame_equal(alone, both)


def test_functional_times_are_in_no_table_that_cannot_say_so(tmp_path: Path) -> None:
    """They are kept where a column says what they are; the artifact's columns have no place for that."""
    measured = server_grid(batch_sizes=(1,))
    functional = [scenario.with_(size="medium", purpose="functional") for scenario in measured]
    write_all(tmp_path, [*measured, *functional])
    tables = tables_of(tmp_path, [*measured, *functional])
    for name in ("server", "time_split", "token_equality"):
        assert list(tables[name]["purpose"]) == ["measure"] * 3 + ["functional"] * 3
    assert tables["server"]["median_per_token_latency_ms"].notna().all()
    assert tables["server_small"].notna().to_numpy().tolist() == [[True] * 4]
    assert tables["server_medium"].notna().to_numpy().tolist() == [[True, False, False, False]]
    assert list(tables["token_equality"]["num_prompts_identical"]) == [4] * 6


def test_server_row_of_a_record(tmp_path: Path) -> None:
    incremental, _, tree = scenarios = server_grid(batch_sizes=(1,))
    write_all(tmp_path, scenarios)
    row = row_of(tables_of(tmp_path, scenarios)["server"], tree)
    per_token = [request["latency_us"] / 36 / 1000 for request in tree.rows()]
    assert row["per_token_latency_ms"] == pytest.approx(sum(per_token) / len(per_token))
    assert row["median_per_token_latency_ms"] == pytest.approx(pd.Series(per_token).median())
    assert row["p90_per_token_latency_ms"] == pytest.approx(pd.Series(per_token).quantile(0.9))
    assert row["ci_low_ms"] <= row["median_per_token_latency_ms"] <= row["ci_high_ms"]
    assert row["artifact_per_token_latency_ms"] == pytest.approx(row["per_token_latency_ms"] * 36 / 128)
    assert (row["tokens_per_step"], row["acceptance_rate"]) == (3.0, 0.25)
    # Both take the same prompts and repeats, so that only steps and their cost remain in the ratio.
    expected_speedup = (36 * incremental.step_us) / (12 * tree.step_us)
    assert row["speedup"] == pytest.approx(expected_speedup)
    assert row["speedup_ci_low"] == pytest.approx(expected_speedup)
    assert (row["num_requests"], row["num_repeats"], row["num_threads"]) == (4, 2, 2)
    assert row["target_num_parameters"] == 105_300_000


def test_incremental_is_the_measure_of_itself(tmp_path: Path) -> None:
    scenario = SyntheticScenario()
    scenario.write(tmp_path / "raw")
    row = row_of(tables_of(tmp_path, [scenario])["server"], scenario)
    assert (row["speedup"], row["speedup_ci_low"], row["speedup_ci_high"]) == (1.0, 1.0, 1.0)
    assert row["tokens_per_step"] == 1.0
    assert pd.isna(row["acceptance_rate"])


@pytest.mark.parametrize(
    "change", [{"device": "NVIDIA A10G"}, {"dtype": "bfloat16"}, {"prompts": "other.json"}, {"target": "other"}]
)
def test_no_speedup_across_machines_precisions_prompts_or_targets(tmp_path: Path, change: dict[str, str]) -> None:
    scenarios = [SyntheticScenario().with_(**change), SyntheticScenario(mode="tree")]
    write_all(tmp_path, scenarios)
    row = row_of(tables_of(tmp_path, scenarios)["server"], scenarios[1])
    assert row["status"] == "ok"
    assert pd.isna(row["speedup"])


def test_speedup_takes_the_prompts_that_both_have(tmp_path: Path) -> None:
    incremental = SyntheticScenario(num_prompts=2, step_us=2000.0)
    tree = SyntheticScenario(mode="tree", num_prompts=4, step_us=2000.0)
    write_all(tmp_path, [incremental, tree])
    row = row_of(tables_of(tmp_path, [incremental, tree])["server"], tree)
    assert row["speedup"] == pytest.approx(3.0)


def test_a_setting_is_compared_with_the_incremental_of_its_own_settings(tmp_path: Path) -> None:
    plain = SyntheticScenario(step_us=1000.0)
    code = SyntheticScenario(step_us=4000.0, settings={"prompts": "code"})
    tree_code = SyntheticScenario(mode="tree", step_us=1000.0, settings={"prompts": "code"})
    tree_wide = SyntheticScenario(mode="tree", step_us=1000.0, settings={"expansion": "5"})
    scenarios = [plain, code, tree_code, tree_wide]
    write_all(tmp_path, scenarios)
    table = tables_of(tmp_path, scenarios)["server"]
    assert row_of(table, tree_code)["speedup"] == pytest.approx(12.0)
    assert row_of(table, tree_wide)["speedup"] == pytest.approx(3.0)


def test_a_peer_is_one_more_mode_without_a_time_split(tmp_path: Path) -> None:
    ours = server_grid(batch_sizes=(1, 2))
    theirs = [SyntheticScenario(mode=PEER, batch_size=n, step_us=2000.0 * (1 + n / 8), draft=None) for n in (1, 2)]
    write_all(tmp_path, [*ours, *theirs])
    tables, without = tables_of(tmp_path, [*ours, *theirs]), tables_of(tmp_path, ours)
    for name in ("server_small", "time_split"):
        pd.testing.assert_frame_equal(tables[name], without[name])
    for scenario in theirs:
        row = row_of(tables["server"], scenario)
        assert (row["mode"], row["status"], row["tokens_per_step"]) == (PEER, "ok", 1.0)
        assert row["speedup"] == pytest.approx(0.5)
        row = row_of(tables["token_equality"], scenario)
        assert (row["baseline_scenario"], row["num_prompts_identical"]) == (ours[0].name, 4)


def test_a_peer_has_the_settings_of_our_incremental(tmp_path: Path) -> None:
    code = SyntheticScenario(step_us=4000.0, settings={"prompts": "code"})
    theirs = SyntheticScenario(mode=PEER, step_us=2000.0, settings={"prompts": "code"})
    write_all(tmp_path, [SyntheticScenario(), code, theirs])
    table = tables_of(tmp_path, [SyntheticScenario(), code, theirs])["server"]
    assert row_of(table, theirs)["speedup"] == pytest.approx(2.0)


def test_scenarios_without_record_are_rows_with_their_status(tmp_path: Path) -> None:
    scenarios = server_grid(batch_sizes=(1, 2))
    raw_dir = tmp_path / "raw"
    scenarios[0].write(raw_dir)
    scenarios[1].write_failure(raw_dir, "out of memory")
    scenarios[2].with_(fingerprint="a" * 64).write(raw_dir)
    scenarios[3].write(raw_dir, num_rows=99)
    for name in ("server", "time_split", "token_equality"):
        table = tables_of(tmp_path, scenarios)[name]
        assert list(table["status"]) == ["ok", "failed", "superseded", "incomplete", "missing", "missing"]
    table = tables_of(tmp_path, scenarios)["server"]
    assert row_of(table, scenarios[1])["detail"] == "out of memory"
    assert table["median_per_token_latency_ms"].notna().sum() == 1


def test_tables_of_an_empty_plan_have_their_columns(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, [])
    assert set(tables) == {"server", "offloading", "time_split", "token_equality"}
    assert all(len(table) == 0 and len(table.columns) > 5 for table in tables.values())


def test_other_experiments_stay_out_of_the_server_tables(tmp_path: Path) -> None:
    scenarios = [SyntheticScenario(), SyntheticScenario(mode="tree", experiment="ablation")]
    write_all(tmp_path, scenarios)
    tables = tables_of(tmp_path, scenarios)
    assert len(tables["server"]) == 1
    assert tables["server_small"]["tree_specinfer_per_token_latency_ms"].isna().all()
    assert len(tables["time_split"]) == 2


def test_time_shares_sum_to_one(tmp_path: Path) -> None:
    scenario = SyntheticScenario(mode="tree")
    scenario.write(tmp_path / "raw")
    row = row_of(tables_of(tmp_path, [scenario])["time_split"], scenario)
    shares = [row[f"{part}_share"] for part in ("draft", "build", "forward", "verify", "commit", "other")]
    assert shares == pytest.approx([0.20, 0.0, 0.50, 0.10, 0.15, 0.05])
    assert row["step_time_ms"] == pytest.approx(0.025)


def test_equal_tokens_are_counted(tmp_path: Path) -> None:
    scenarios = server_grid(batch_sizes=(1, 8))
    write_all(tmp_path, scenarios)
    table = tables_of(tmp_path, scenarios)["token_equality"]
    assert list(table["num_prompts_compared"]) == [4] * 6
    assert list(table["num_prompts_identical"]) == [4] * 6
    assert set(table["baseline_scenario"]) == {scenarios[0].name}
    assert table["first_different_prompt_index"].isna().all()


def test_one_different_token_in_one_repeat_is_a_difference(tmp_path: Path) -> None:
    incremental, tree = SyntheticScenario(), SyntheticScenario(mode="tree", batch_size=4)
    rows = tree.rows()
    rows[6]["output_token_ids"][-1] += 1
    incremental.write(tmp_path / "raw")
    tree.write(tmp_path / "raw", rows=rows)
    row = row_of(tables_of(tmp_path, [incremental, tree])["token_equality"], tree)
    assert (row["num_prompts_compared"], row["num_prompts_identical"]) == (4, 3)
    assert row["first_different_prompt_index"] == 2


def test_equality_is_unknown_without_the_baseline(tmp_path: Path) -> None:
    incremental, tree = SyntheticScenario(), SyntheticScenario(mode="tree")
    tree.write(tmp_path / "raw")
    row = row_of(tables_of(tmp_path, [incremental, tree])["token_equality"], tree)
    assert row["baseline_scenario"] == incremental.name
    assert pd.isna(row["num_prompts_compared"])


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
def test_damage_in_what_a_record_tells_of_streaming_is_its_status(tmp_path: Path, damage: dict[str, object]) -> None:
    (scenario, *_) = offloading_grid((1,))
    scenario.write(tmp_path / "raw", **damage)
    row = row_of(tables_of(tmp_path, [scenario])["offloading"], scenario)
    assert row["status"] == "incomplete" and "not a" in row["detail"]
