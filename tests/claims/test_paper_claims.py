"""The shipped claims, judged on made-up tables in which the right verdicts are known."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from claims.claim import load_claims
from claims.cli import main
from claims.measures import OfRequests
from tests.claims.made_up import A10, G5, LAPTOP, PAPER, World, paper_world, read, write_platform

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "REPRODUCED", "NOT REPRODUCED", "NOT TESTABLE HERE"
PAPERS = {"target": "LLaMA-7B", "draft": "LLaMA-68M"}
HARDWARE = {"C2", "C3", "C4", "C5", "C6", "C9", "C10"}
ALL = {f"C{number}" for number in range(1, 13)}

Verdicts = dict[str, dict[str, str]]


def judged(
    folder: Path,
    world: World,
    platform: dict[str, Any],
    *words: str,
    only: str = "",
    slip: tuple[str, str] = ("", ""),
    status: int = 0,
) -> Verdicts:
    """The verdicts that the command writes, of one claim or of all; ``slip``: what is written wrongly in the file."""
    platform_file = write_platform(folder, platform)
    tables = world.write(folder / "csv")
    text = (PAPER / "claims.yaml").read_text()
    assert slip[0] in text
    data = yaml.safe_load(text.replace(*slip))
    data["claims"] = [claim for claim in data["claims"] if only in ("", claim["id"])]
    (folder / "claims.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    arguments = ["--csv-dir", str(tables), "--paper-dir", str(folder), "--platform-file", str(platform_file)]
    assert main([*arguments, "--output-dir", str(folder), *words]) == status
    return {} if status else read(folder / "claims.csv")


def with_verdict(rows: Verdicts, verdict: str) -> set[str]:
    return {name for name, row in rows.items() if row["verdict"] == verdict}


def paper_setting() -> World:
    return paper_world(A10, PAPERS)


def test_the_paper_itself_reproduces(tmp_path: Path) -> None:
    rows = judged(tmp_path, paper_setting(), G5)
    assert with_verdict(rows, REPRODUCED) == ALL
    assert rows["C2"]["published"] == "1.5 to 2.5"
    assert "meets the published range" in rows["C2"]["why"]
    assert rows["C1"]["interval"] == "" and rows["C2"]["interval"]
    assert all(int(row["n"]) > 0 and row["measured"] for row in rows.values())


def test_elsewhere_hardware_claims_are_shown_and_not_judged(tmp_path: Path) -> None:
    rows = judged(tmp_path, paper_world(), LAPTOP)
    assert with_verdict(rows, NOT_TESTABLE) == HARDWARE
    assert with_verdict(rows, REPRODUCED) == ALL - HARDWARE
    for name in HARDWARE:
        assert "2 nodes of 4 A10 GPUs, here 1 x 1 Example CPU" in rows[name]["why"]
        assert rows[name]["measured"] and rows[name]["interval"]
        assert "as far as measured, it holds: " in rows[name]["why"]
    # Of stand-in models only the direction is tested.
    assert "direction only: the published range is for paper models" in rows["C8"]["why"]


@pytest.mark.parametrize("device", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "Tesla A10000"])
def test_other_devices_are_no_paper_hardware(tmp_path: Path, device: str) -> None:
    rows = judged(tmp_path, paper_world(device, PAPERS), G5, only="C5")
    assert with_verdict(rows, NOT_TESTABLE) == {"C5"}


def test_fewer_nodes_are_no_paper_hardware(tmp_path: Path) -> None:
    rows = judged(tmp_path, paper_setting(), G5 | {"num_nodes": 1})
    assert with_verdict(rows, NOT_TESTABLE) == HARDWARE


def scaled(world: World, factor: float, column: str, **cells: Any) -> None:
    """Multiply a column of the requests of scenarios with these cells."""
    named = {
        row["scenario"]
        for rows in world.scenarios.values()
        for row in rows
        if all(row.get(key) == value for key, value in cells.items())
    }
    assert named
    for request in world.requests:
        if request["scenario"] in named:
            request[column] *= factor


LATENCY, TOKENS = "per_token_latency_ms", "tokens_per_step"


def flat_gain(world: World) -> None:
    for batch, factor in {1: 2.4, 2: 2.3, 4: 2.0, 8: 1.7, 16: 1.6}.items():
        scaled(world, factor / 2, LATENCY, experiment="server", mode="tree", batch_size=batch)


def one_different_prompt(world: World) -> None:
    world.equality[-1]["num_prompts_identical"] -= 1


def same_rates(world: World) -> None:
    for row in world.rates:
        if row["decoding"] == "greedy":
            row |= {"success_rate": 0.7, "ci_low": 0.68, "ci_high": 0.72}


def wide_at_every_batch(world: World) -> None:
    scaled(world, 0.5, LATENCY, experiment="tree_width_latency", tree_width=5)


def lossy(world: World) -> None:
    world.audit[0]["total_variation"] = 2e-12


def failing_sampling(world: World) -> None:
    world.audit[2]["verdict"] = "fails"


def missed_control(world: World) -> None:
    world.audit[3]["verdict"] = "missed"


SPOILT: list[tuple[str, Callable[[World], None], str]] = [
    ("C1", one_different_prompt, "differs from the published 1"),
    ("C2", lambda world: scaled(world, 4, LATENCY, experiment="server", mode="tree"), "lies below 1"),
    ("C2", lambda world: scaled(world, 1.94, LATENCY, experiment="server", mode="tree"), "includes 1"),
    ("C2", lambda world: scaled(world, 0.5, LATENCY, experiment="server", mode="tree"), "misses the published range"),
    ("C3", lambda world: scaled(world, 3, LATENCY, size="large", mode="tree"), "lies below 1"),
    ("C4", lambda world: scaled(world, 0.5, LATENCY, experiment="server", mode="sequence"), "lies below 1"),
    ("C5", flat_gain, "includes 1"),
    ("C6", lambda world: scaled(world, 9, LATENCY, experiment="offloading", mode="tree"), "lies below 1"),
    ("C7", same_rates, "greedy: interval includes 1"),
    ("C8", lambda world: scaled(world, 0.5, TOKENS, decoding="stochastic", tree_width=5), "stochastic: interval lies"),
    ("C9", wide_at_every_batch, "4-16: interval lies above 1"),
    ("C10", lambda world: scaled(world, 2, LATENCY, tree_layout="tree"), "interval lies below 1"),
    ("C11", lambda world: scaled(world, 0.7, TOKENS, verifier="mss"), "lies below 1"),
    ("C12", lossy, "enumeration: differs"),
    ("C12", failing_sampling, "sampling tests that fail: differs"),
    ("C12", missed_control, "mistakes not caught: differs"),
]


@pytest.mark.parametrize(("name", "spoil", "why"), SPOILT)
def test_a_spoilt_world_does_not_reproduce(tmp_path: Path, name: str, spoil: Callable[[World], None], why: str) -> None:
    world = paper_setting()
    spoil(world)
    row = judged(tmp_path, world, G5, only=name)[name]
    assert row["verdict"] == NOT_REPRODUCED, row
    assert why in row["why"]


def missing(world: World, *, half: bool = False) -> World:
    """The same plan without records, or with those of every batch size but one."""
    bare = dataclasses.replace(
        world, scenarios={}, requests=[], equality=[], rates=[], audit=[] if not half else world.audit
    )
    names = set()
    for table, rows in world.scenarios.items():
        bare.scenarios[table] = []
        for row in rows:
            gone = not half or row["batch_size"] == 8
            lost = {"status": "missing", "device": "", "num_threads": "", "dtype": ""}
            bare.scenarios[table].append(row | (lost if gone else {}))
            names |= {row["scenario"]} if gone else set()
    bare.requests = [row for row in world.requests if row["scenario"] not in names]
    bare.rates = [row for row in world.rates if row["scenario"] not in names]
    blank = {"status": "missing", "num_prompts_compared": "", "num_prompts_identical": "", "dtype": ""}
    bare.equality = [row | (blank if row["scenario"] in names else {}) for row in world.equality]
    return bare


def test_without_a_record_the_command_that_makes_them_is_told(tmp_path: Path) -> None:
    command = "snakemake {target} --config platform=here"
    rows = judged(tmp_path, missing(paper_setting()), G5, "--run-command", command)
    assert with_verdict(rows, NOT_TESTABLE) == ALL
    assert "snakemake audit_losslessness --config platform=here" in rows["C12"]["why"]
    for name, experiment in {"C2": "server", "C6": "offloading", "C7": "rank_success", "C11": "sampling"}.items():
        assert f"snakemake {experiment}_experiments --config platform=here" in rows[name]["why"]
        assert rows[name]["measured"] == rows[name]["interval"] == rows[name]["n"] == ""
    assert "10 of 10 records missing: snakemake" in rows["C2"]["why"]
    num_planned = len(paper_setting().scenarios["rank_success"]) // 2
    of_each = f"of greedy and of stochastic each: {num_planned} of {num_planned} records missing: snakemake"
    assert of_each in rows["C7"]["why"], "and not as if these were all"


def test_with_records_missing_what_there_is_is_shown_and_not_judged(tmp_path: Path) -> None:
    rows = judged(tmp_path, missing(paper_setting(), half=True), G5)
    assert with_verdict(rows, NOT_TESTABLE) == {"C1", *HARDWARE}
    assert "2 of 10 records missing (server_9, server_11): snakemake server_experiments" in rows["C2"]["why"]
    assert re.match(r"\d+ of 115 records missing \(server_10, server_11, server_\d+, \.\.\.\): ", rows["C1"]["why"])
    assert "in 4 pairs" in rows["C2"]["measured"]


def test_a_counterexample_counts_whatever_is_missing(tmp_path: Path) -> None:
    world = missing(paper_setting(), half=True)
    row = next(row for row in world.equality if row["status"] == "ok" and row["mode"] == "tree")
    row["num_prompts_identical"] -= 1
    assert judged(tmp_path, world, G5, only="C1")["C1"]["verdict"] == NOT_REPRODUCED


def test_times_of_functional_placements_do_not_count_but_their_tokens_do(tmp_path: Path) -> None:
    world = paper_setting()
    for row in (*world.scenarios["server"], *world.equality):
        if row["experiment"] == "server":
            row["purpose"] = "functional"
    rows = judged(tmp_path, world, G5)
    for name in ("C2", "C3", "C4", "C5"):
        assert rows[name]["verdict"] == NOT_TESTABLE
        assert rows[name]["why"] == "only functional placements, whose times are the scheduler's"
        assert rows[name]["measured"] == ""
    assert rows["C1"]["verdict"] == REPRODUCED
    next(row for row in world.equality if row["mode"] == "tree")["num_prompts_identical"] = 0
    assert judged(tmp_path, world, G5, only="C1")["C1"]["verdict"] == NOT_REPRODUCED


def test_token_equality_leaves_out_sampling_half_precision_and_third_parties(tmp_path: Path) -> None:
    world = paper_setting()
    unlike = {"baseline_scenario": ""}
    for changes in ({"decoding": "stochastic"}, {"dtype": "float16"}, {"mode": "transformers"}, unlike):
        row = world.add("server", **{"size": "medium", "mode": "other"} | changes)
        world.equality[-1] |= row | {"num_prompts_compared": 12, "num_prompts_identical": 0}
    rows = judged(tmp_path, world, LAPTOP, only="C1")
    assert rows["C1"]["verdict"] == REPRODUCED
    assert rows["C1"]["n"] == judged(tmp_path, paper_setting(), LAPTOP, only="C1")["C1"]["n"]


def test_blank_counts_of_a_complete_record_are_missing(tmp_path: Path) -> None:
    world = paper_setting()
    row = next(row for row in world.equality if row["mode"] == "tree")
    row |= {"num_prompts_compared": "", "num_prompts_identical": ""}
    found = judged(tmp_path, world, G5, only="C1")["C1"]
    assert found["verdict"] == NOT_TESTABLE
    assert f"1 of 115 records missing ({row['scenario']})" in found["why"]


def test_prompts_without_a_value_leave_the_comparison(tmp_path: Path) -> None:
    world = paper_setting()
    for row in world.requests:
        if row["prompt_index"] == 3 and row["repeat"] == 1:
            row["per_token_latency_ms"] = ""
    rows = judged(tmp_path, world, G5, only="C2")
    assert rows["C2"]["verdict"] == REPRODUCED
    assert rows["C2"]["n"] == str(5 * 11)


def test_too_few_prompts_give_no_verdict(tmp_path: Path) -> None:
    world = paper_setting()
    world.requests = [row for row in world.requests if row["prompt_index"] < 4]
    row = judged(tmp_path, world, G5, only="C2")["C2"]
    assert row["verdict"] == NOT_TESTABLE
    assert "4 prompts, at least 5 needed" in row["why"]
    assert "as far as measured" not in row["why"]


@pytest.mark.parametrize("column", ["target_description", "draft_description"])
def test_made_up_weights_show_nothing_but_equality(tmp_path: Path, column: str) -> None:
    world = paper_setting()
    for rows in world.scenarios.values():
        for row in rows:
            row[column] = "LLaMA, 7B parameters, synthetic weights"
    rows = judged(tmp_path, world, G5)
    assert with_verdict(rows, REPRODUCED) == {"C1", "C12"}
    assert with_verdict(rows, NOT_TESTABLE) == ALL - {"C1", "C12"}
    assert "was chosen, not trained: LLaMA, 7B parameters, synthetic weights" in rows["C7"]["why"]
    assert not any("as far as measured" in row["why"] for row in rows.values())


def test_records_of_different_machines_are_not_compared(tmp_path: Path) -> None:
    world = paper_setting()
    world.scenarios["server"][0]["device"] = "NVIDIA A10"
    row = judged(tmp_path, world, G5, only="C2")["C2"]
    assert row["verdict"] == NOT_TESTABLE
    assert "records of different device: NVIDIA A10, NVIDIA A10G" in row["why"]


def test_a_platform_without_the_experiment(tmp_path: Path) -> None:
    world = paper_setting()
    world.scenarios["offloading"] = []
    names = {row["scenario"] for rows in world.scenarios.values() for row in rows}
    world.equality = [row for row in world.equality if row["scenario"] in names]
    row = judged(tmp_path, world, G5, only="C6")["C6"]
    assert row["verdict"] == NOT_TESTABLE
    assert row["why"] == "nothing in table offloading with quantisation blank"


def test_an_experiment_that_is_not_configured_has_no_table(tmp_path: Path) -> None:
    world = paper_setting()
    del world.scenarios["sampling"]
    known = {row["scenario"] for rows in world.scenarios.values() for row in rows}
    world.equality = [row for row in world.equality if row["scenario"] in known]
    row = judged(tmp_path, world, G5, only="C11")["C11"]
    assert (row["verdict"], row["why"]) == (NOT_TESTABLE, "no table sampling: nothing here is planned for it")


def test_a_slip_of_the_pen_is_told_from_what_was_not_measured(tmp_path: Path) -> None:
    slips = {
        "table: sampling": (
            "table: samplings",
            "no table samplings: nothing here is planned for it; is sampling meant?",
        ),
        "numerator: {verifier: mss}": (
            "numerator: {verifier: msss}",
            "nothing in table sampling with verifier msss; there are verifier: mss, sampler_match",
        ),
    }
    for right, (wrong, why) in slips.items():
        row = judged(tmp_path, paper_setting(), G5, only="C11", slip=(right, wrong))["C11"]
        assert (row["verdict"], row["why"]) == (NOT_TESTABLE, why)


def test_a_column_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slip = ("pair_by: [size, batch_size, prompt_set]", "pair_by: [size, batchsize]")
    judged(tmp_path, paper_setting(), G5, only="C2", slip=slip, status=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("claims: C2: pair_by: no columns batchsize; there are scenario, ")


def test_every_rule_has_a_reason_and_every_comparison_of_times_keeps_conditions_apart() -> None:
    claims = load_claims(PAPER / "claims.yaml")
    assert {claim.id for claim in claims.claims} == ALL
    assert {claim.id for claim in claims.claims if claim.kind == "hardware"} == HARDWARE
    for claim in claims.claims:
        for part in claim.parts:
            assert len(part.rule.reason) > 40
            if isinstance(part.measure, OfRequests):
                assert {"size", "batch_size", "prompt_set"} <= set(part.measure.pair_by)


def test_published_numbers_are_those_of_the_tables() -> None:
    """Claims and published tables are two copies of the same paper."""
    data = {claim["id"]: claim for claim in yaml.safe_load((PAPER / "claims.yaml").read_text())["claims"]}
    lines = (PAPER / "table1_topk_success_rate.csv").read_text().split()[1:]
    for decoding, (low, high) in data["C7"]["published"].items():
        cells = [line.split(",") for line in lines if line.startswith(decoding)]
        assert min(float(rate) for _, _, k, rate in cells if k == "1") == pytest.approx(100 * low)
        assert max(float(rate) for _, _, k, rate in cells if k == "5") == pytest.approx(100 * high)
