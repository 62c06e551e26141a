"""The tables say what the records hold: values against sums done by hand, blanks where nothing counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from data_parsing.errors import ParsingError
from tests.data_parsing.built_tables import FIXED, row_of, tables_of, write_all
from tests.data_parsing.record_files import PEER, SyntheticScenario, server_grid


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


def test_tokens_per_step_have_an_interval_over_prompts(tmp_path: Path) -> None:
    scenario = SyntheticScenario(mode="tree", num_repeats=1)
    rows = scenario.rows()
    rows[0] |= {"accepted_per_step": [0, 0, 0, 0, 0], "num_accepted_tokens": 0}
    scenario.write(tmp_path / "raw", rows=rows)
    row = row_of(tables_of(tmp_path, [scenario])["server"], scenario)
    assert row["tokens_per_step"] == pytest.approx((4 + 3 * 36) / (4 + 3 * 12))
    # A draw with the first prompt every time emits one token per step, one without it three.
    assert 1 <= row["tokens_per_step_ci_low"] < row["tokens_per_step"] < row["tokens_per_step_ci_high"] == 3.0


def test_identity_tells_how_a_scenario_drafts(tmp_path: Path) -> None:
    drawn = SyntheticScenario(
        "stochastic_width_3",
        experiment="tree_width",
        expansion=(1, 3, 1),
        selection="iid",
        temperature=1.0,
        verifier="mss",
        tree_layout="sequences",
        prompt_set="webqa",
    )
    incremental = drawn.with_(mode="incremental", expansion=(), selection="top_k")
    write_all(tmp_path, [drawn])
    tables = tables_of(tmp_path, [drawn, incremental])
    own = ["decoding", "expansion", "tree_width", "branching_step", "selection", "verifier", "tree_layout"]
    for name in ("tree_width", "time_split"):
        row = row_of(tables[name], drawn)
        assert list(row[own]) == ["stochastic", "1.3.1", 3, 2, "iid", "mss", "sequences"]
        assert row["prompt_set"] == "webqa"
        row = row_of(tables[name], incremental)
        assert row["decoding"] == "stochastic" and row[own[1:]].isna().all()
    chain = drawn.with_(expansion=(1, 1))
    row = row_of(tables_of(tmp_path, [chain])["tree_width"], chain)
    assert row["tree_width"] == 1 and pd.isna(row["branching_step"])


def test_long_tables_have_the_columns_that_others_read(tmp_path: Path) -> None:
    """Their names and order are agreed with figures and claims."""
    columns = list(tables_of(tmp_path, [])["server"].columns)
    assert columns[:10] == [
        *("scenario", "size", "purpose", "mode", "batch_size", "status", "target", "draft", "offload", "quantisation")
    ]
    assert columns[10:20] == [
        *("prompt_set", "decoding", "expansion", "tree_width", "branching_step", "selection", "verifier"),
        *("tree_layout", "num_requests", "num_repeats"),
    ]
    after = columns.index("tokens_per_step")
    assert columns[after + 1 : after + 4] == ["tokens_per_step_ci_low", "tokens_per_step_ci_high", "acceptance_rate"]


def test_a_speedup_is_over_the_same_conditions_or_blank(tmp_path: Path) -> None:
    tree = SyntheticScenario("width_2", experiment="width", expansion=(2,), accepted_per_step=1, prompt_set="piqa")
    incremental = tree.with_(mode="incremental", expansion=(), accepted_per_step=None)
    others = [
        incremental.with_(prompt_set="alpaca", step_us=5.0),
        incremental.with_(batch_size=2, step_us=5.0),
        incremental.with_(experiment="other", step_us=5.0),
        incremental.with_(placement="x", size="large", step_us=5.0),
    ]
    write_all(tmp_path, [tree, incremental, *others])
    table = tables_of(tmp_path, [*others, tree, incremental])["width"]
    assert row_of(table, tree)["speedup"] == pytest.approx(2.0)
    assert pd.isna(row_of(tables_of(tmp_path, [*others, tree])["width"], tree)["speedup"])


def test_drawn_tokens_are_not_compared(tmp_path: Path) -> None:
    tree = SyntheticScenario("tree", temperature=1.0)
    incremental = SyntheticScenario(temperature=1.0)
    write_all(tmp_path, [tree, incremental])
    row = row_of(tables_of(tmp_path, [tree, incremental])["token_equality"], tree)
    assert row["baseline_scenario"] == incremental.name and pd.isna(row["num_prompts_compared"])


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParsingError, match="two tables are named 'requests'"):
        tables_of(tmp_path, [], ["requests"])


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
    tables = tables_of(tmp_path, [], ["server", "offloading", "tree_width"])
    assert set(tables) == {"server", "offloading", "tree_width", *FIXED}
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
