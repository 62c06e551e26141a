"""``treespec explain`` on the records of a tiny run, on damaged ones, and as a short measurement."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from engine.tests.conftest import TinyModels
from engine.tests.jobs import JobFolder, use_own_locks
from treespec import cli
from treespec.explain.record_files import read_record_folder
from treespec.explain.records_report import explain_records

INCREMENTAL, SEQUENCE, TREE = (f"server_small-2_batchsize-{mode}" for mode in ("incremental", "sequence", "tree"))
AUTO = "server_small-2_batchsize-auto"
LARGER = "server_small-4_batchsize-tree"


@pytest.fixture(scope="module")
def ran(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """Three modes and an automatic tree, served; and the tree at a batch size without incremental decoding."""
    root = tmp_path_factory.mktemp("explained")
    job = JobFolder.create(root, tiny.target("gqa"), tiny.draft("gqa"), ["ab cd", "ef gh ij", "kl", "mn op"])
    auto = {"drafters": [{"kind": "ssm", "tree": "auto", "num_nodes": 6, "max_depth": 3}], "expansion": []}
    job.scenarios.append(job.scenarios[2] | auto | {"name": AUTO})
    job.scenarios.append(job.scenarios[2] | {"name": LARGER, "max_requests_per_batch": 4, "num_repeats": 1})
    with pytest.MonkeyPatch.context() as patch:
        use_own_locks(root / "tmp", patch)
        assert job.run() == 0
    return job


@pytest.fixture
def records(ran: JobFolder, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(ran.results, tmp_path / "records"))


def explain(*arguments: object) -> int:
    return cli.main(["explain", *map(str, arguments)])


def as_json(records: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    assert explain("--records", records, "--json", tmp_path / "told.json", *options) == 0
    found: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    return found


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["scenario"]: item for item in found["scenarios"]}


def test_numbers_are_those_of_the_records(ran: JobFolder, records: Path, tmp_path: Path) -> None:
    found = by_name(as_json(records, tmp_path))
    assert sorted(found) == sorted(ran.names)
    rows, plain = ran.rows(TREE), ran.rows(INCREMENTAL)
    tree = found[TREE]
    steps = sum(len(row["accepted_per_step"]) for row in rows)
    assert tree["tokens_per_step"] == pytest.approx(sum(row["num_output_tokens"] for row in rows) / steps)
    assert tree["nodes_per_step"] == pytest.approx(1 + sum(row["num_draft_tokens"] for row in rows) / steps)
    ratios = [a["latency_us"] / b["latency_us"] for a, b in zip(plain, rows, strict=True)]
    assert tree["speedup"]["median"] == pytest.approx(median(ratios))
    assert tree["speedup"]["baseline"] == INCREMENTAL
    times = [repeat["time_us"] for repeat in ran.meta(TREE)["repeats"]]
    share = sum(time["draft"] for time in times) / sum(sum(time.values()) for time in times)
    assert tree["time_shares"]["draft"] == pytest.approx(share)
    first = tree["acceptance_by_depth"][0]
    assert first["num_reached"] == sum(row["offered_by_depth_and_rank"][0][0] for row in rows)
    accepted = sum(sum(row["accepted_by_depth_and_rank"][0]) for row in rows)
    assert first["rate"] == pytest.approx(accepted / first["num_reached"])
    assert tree["break_even_tokens"] == pytest.approx(tree["tokens_per_step"] / tree["speedup"]["median"])


def test_costs_of_the_records_give_a_prediction_and_an_outlook(ran: JobFolder, records: Path, tmp_path: Path) -> None:
    found = as_json(records, tmp_path)
    (pair,) = found["pairs"]
    assert sorted(pair["scenarios"]) == sorted([SEQUENCE, TREE, AUTO, LARGER])
    assert pair["costs"] == ran.meta(AUTO)["costs"]["0"]
    assert [item["batch_size"] for item in pair["outlook"]] == list(range(1, 17))
    predicted = by_name(found)[TREE]["predicted"]
    assert predicted["num_nodes"] == 11  # <2,2,1> and the root
    assert predicted["tokens_per_step"] == pytest.approx(by_name(found)[TREE]["tokens_per_step"], rel=0.2)
    assert predicted["speedup"] > 0


def test_records_of_a_pair_are_pooled(records: Path) -> None:
    read = [record for record in read_record_folder(records).complete if record.name in (TREE, LARGER)]
    without = [replace(record, costs={}) for record in read]
    assert not explain_records(without, without, {}).pairs
    (pair,) = explain_records(read, read, {}).pairs
    both = [replace(read[0], requests=read[0].requests + read[1].requests)]
    (one,) = explain_records(both, both, {}).pairs
    assert pair.outlooks == one.outlooks


def test_the_fastest_scenario_that_was_measured_is_named(records: Path, tmp_path: Path) -> None:
    found = as_json(records, tmp_path)
    (pair,) = found["pairs"]
    speedups = {item["scenario"]: item["speedup"]["median"] for item in found["scenarios"] if item["speedup"]}
    batch_sizes = {name: by_name(found)[name]["batch_size"] for name in speedups}
    expected = {
        size: max((name for name in speedups if batch_sizes[name] == size), key=lambda name: speedups[name])
        for size in set(batch_sizes.values())
    }
    assert {item["batch_size"]: item["scenario"] for item in pair["fastest"]} == expected
    read = read_record_folder(records).complete
    (name,) = expected.values()
    told = f"Fastest of these as measured: at batch size 2 {name}, {speedups[name]:.2f} ["
    assert told in explain_records(read, read, {}).text()


def test_text_tells_it_with_bars(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--records", records, "--scenario", TREE) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{TREE}: <2,2,1>, batch size 2\n")
    for label in ("verdict", "speed-up", "tokens per step", "acceptance", "time: forward", "accepted, depth 1"):
        assert f"\n  {label}" in out
    assert "t(n)/t(1)" in out
    assert "####" in out
    assert INCREMENTAL + ":" not in out


def test_patterns_choose_scenarios(records: Path, tmp_path: Path) -> None:
    assert sorted(by_name(as_json(records, tmp_path, "--scenario", "*-2_*-tree", "*-s?quence"))) == [SEQUENCE, TREE]


def test_incomplete_records_are_named_and_left_out(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = records / f"{SEQUENCE}.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    meta = records / f"{TREE}.meta.json"
    meta.write_text(meta.read_text()[:200])
    failed = json.loads((records / f"{AUTO}.meta.json").read_text()) | {"status": "failed", "error": "no\nmemory"}
    (records / f"{AUTO}.meta.json").write_text(json.dumps(failed))
    (records / "unfinished.jsonl").write_text("{}\n")
    peer = json.loads((records / f"{INCREMENTAL}.meta.json").read_text())
    peer["config"]["scenario"]["mode"] = "transformers"
    (records / "peer.meta.json").write_text(json.dumps(peer))
    found = as_json(records, tmp_path)
    assert list(by_name(found)) == [INCREMENTAL, LARGER]
    assert sorted(found["left_out"]) == sorted([SEQUENCE, TREE, AUTO, "unfinished", "peer"])
    told = capsys.readouterr().err
    assert f"left out: {SEQUENCE}: incomplete: 7 rows of 8" in told
    assert f"left out: {TREE}: damaged: not the JSON" in told
    assert f"left out: {AUTO}: failed: no memory" in told
    assert "left out: unfinished: rows without .meta.json" in told
    assert "left out: peer: served by transformers" in told


@pytest.mark.parametrize("spoilt", ["repeats", "config", "models_are_fine"])
def test_a_record_without_what_is_needed_is_damage(spoilt: str, records: Path, tmp_path: Path) -> None:
    path = records / f"{TREE}.meta.json"
    meta = json.loads(path.read_text())
    meta.pop("models" if spoilt == "models_are_fine" else spoilt)
    path.write_text(json.dumps(meta))
    assert (TREE in as_json(records, tmp_path)["left_out"]) == (spoilt != "models_are_fine")


def test_without_a_baseline_nothing_is_said_of_paying(records: Path, tmp_path: Path) -> None:
    tree = by_name(as_json(records, tmp_path))[LARGER]
    assert (tree["speedup"], tree["break_even_tokens"], tree["break_even_acceptance"]) == (None, None, None)
    assert "no incremental record of the same conditions" in tree["verdict"]


@pytest.mark.parametrize("changed", ["max_new_tokens", "num_repeats", "dtype", "num_threads"])
def test_a_baseline_of_other_conditions_is_none(changed: str, records: Path, tmp_path: Path) -> None:
    path = records / f"{INCREMENTAL}.meta.json"
    meta = json.loads(path.read_text())
    part = {"dtype": meta["config"]["placement"], "num_threads": meta["environment"]}
    part.get(changed, meta["config"]["scenario"])[changed] = "other"
    path.write_text(json.dumps(meta))
    has_baseline = by_name(as_json(records, tmp_path))[TREE]["speedup"] is not None
    assert has_baseline == (changed == "num_repeats")  # no time depends on how often it was measured


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--scenario", "gone"], f"received: gone; allowed: {AUTO}"),
        (["TARGET", "DRAFT"], "received: 2 of them"),
        (["--json", "gone/told.json"], "output cannot be written"),
    ],
)
def test_mistakes_about_records_are_one_line(
    options: list[str], told: str, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    positional = [option for option in options if not option.startswith("--")] if options[0] == "TARGET" else []
    rest = [] if positional else options
    assert explain(*positional, "--records", records, *rest) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert told in line


def test_an_unusable_record_is_told_where_it_is_asked_for(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (records / f"{TREE}.jsonl").write_text("")
    assert explain("--records", records, "--scenario", TREE) == 2
    assert f"{TREE} (incomplete: 0 rows of 8)" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["gone", "empty", "all damaged"])
def test_folders_without_a_record_are_told(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    if kind != "gone":
        folder.mkdir()
    if kind == "all damaged":
        (folder / "some.meta.json").write_text("{")
    assert explain("--records", folder) == 2
    told = {"gone": "no folder of records", "empty": "holds no records", "all damaged": "some: damaged"}[kind]
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize("arguments", [(), ("TARGET",), ("--scenario", "x", "--config", "job.yaml")])
def test_one_source_is_needed(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "explain needs one thing" in line or "chooses among records" in line


def test_two_folders_are_measured(tiny: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--max-new-tokens", 12, "--max-batch-size", 2, "--threads", 1, "--json", tmp_path / "told.json")
    assert explain(tiny.target("gqa"), tiny.draft("gqa"), *options) == 0
    found = json.loads((tmp_path / "told.json").read_text())
    assert [item["batch_size"] for item in found["outlook"]] == [1, 2]
    assert [item["scenario"] for item in found["scenarios"]] == ["incremental_1", "best_1", "incremental_2", "best_2"]
    assert found["costs"]["target"]["rows"][0] == 1
    # What it recommends depends on measured times; what follows from given ones is in test_explain.
    assert found["recommendation"].startswith(("Decode incrementally", "Speculate at"))
    best = by_name(found)["best_1"]
    assert best["speedup"]["baseline"] == "incremental_1"
    assert best["predicted"]["tokens_per_step"] >= 1
    assert capsys.readouterr().out.startswith(found["recommendation"])


def test_a_job_is_measured_with_its_sampling(ran: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    ran.write()
    assert explain("--config", ran.config_file, "--max-batch-size", 1, "--max-new-tokens", 8) == 0
    out = capsys.readouterr().out
    assert "4 prompts" in out
    assert "best_1: " in out


@pytest.mark.parametrize(
    ("change", "told"),
    [({"drafts": []}, "without a draft model"), ({"tensor_parallel_degree": 2}, "received: 2 ranks")],
)
def test_jobs_that_cannot_be_measured_are_told(
    change: dict[str, Any], told: str, job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    job.placement.update(change)
    if "drafts" in change:
        job.scenarios = job.scenarios[:1]
    job.write()
    assert explain("--config", job.config_file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
