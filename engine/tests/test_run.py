"""``treespec run``: whole records, nothing served twice, failures that stay where they are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from engine.tests.conftest import ROOT
from engine.tests.decoding import load
from engine.tests.jobs import MODES, JobFolder
from treespec.config import Scenario
from treespec.metrics import records
from treespec.metrics.records import SUFFIXES
from treespec.serving import job as serving_job
from treespec.serving.build import LoadedPlacement
from treespec.serving.passes import ServedPass, serve_pass
from treespec.tree import Proposals, TreeBuilder

PROFILE = re.compile(r"\[Profile\] guid\((\d+)\) .*latency\((\d+\.\d+)\)")  # of the artifact's own parser
TXT_BLOCK = re.compile(r"end-to-end latency: (\d+\.\d+)\nnum decoding steps: (\d+)\ntoken IDs: ([\d,]+)\n")


def documented_keys(heading: str) -> list[str]:
    """First column of a table of docs/records.md; a cell may name several keys."""
    text = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    section = next(part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(heading))
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


def test_rows_hold_exactly_the_documented_keys(job: JobFolder) -> None:
    assert job.run() == 0
    for name in job.names:
        assert {tuple(row) for row in job.rows(name)} == {tuple(documented_keys("`.jsonl`"))}


def test_meta_files_hold_exactly_the_documented_keys(job: JobFolder) -> None:
    job.run()
    for name in job.names:
        assert sorted(job.meta(name)) == sorted(documented_keys("`.meta.json`"))


def test_record_says_what_was_run_on_what(job: JobFolder) -> None:
    job.run()
    for scenario in job.scenarios:
        meta = job.meta(scenario["name"])
        assert (meta["format"], meta["scenario"], meta["status"]) == (1, scenario["name"], "ok")
        assert meta["config"]["scenario"]["expansion"] == scenario["expansion"]
        assert meta["config"]["placement"]["name"] == "tiny"
        assert meta["environment"]["num_threads"] == 1
        assert meta["models"]["target"]["label"] == "target"
        assert meta["started_at"] <= meta["finished_at"]
        assert sorted(p.name for p in job.results.glob(f"{scenario['name']}.*")) == sorted(
            scenario["name"] + suffix for suffix in SUFFIXES
        )


def test_every_mode_generates_the_same_tokens_in_every_repeat(job: JobFolder) -> None:
    job.run()
    outputs = {
        name: [(row["repeat"], row["prompt_index"], row["output_token_ids"]) for row in job.rows(name)]
        for name in job.names
    }
    first = outputs[job.names[0]]
    assert [(repeat, index) for repeat, index, _ in first] == [(r, i) for r in range(2) for i in range(4)]
    assert first[:4] == [(0, index, ids) for _, index, ids in first[4:]]
    assert all(rows == first for rows in outputs.values())


def test_rows_agree_with_themselves(job: JobFolder) -> None:
    job.run()
    for name in job.names:
        rows, meta = job.rows(name), job.meta(name)
        assert [row["guid"] for row in rows] == list(range(1_000_000, 1_000_000 + len(rows)))
        for row in rows:
            assert row["num_output_tokens"] == len(row["output_token_ids"]) == 12
            assert row["num_accepted_tokens"] == sum(row["accepted_per_step"])
            assert sum(count + 1 for count in row["accepted_per_step"]) == 12
            assert row["num_target_steps"] >= len(row["accepted_per_step"])
            assert row["latency_us"] == row["finish_us"] - row["start_us"] >= 0
            assert row["start_us"] <= row["first_token_us"] <= row["finish_us"]
            assert row["finish_us"] <= meta["repeats"][row["repeat"]]["wall_us"] + 5
            assert row["finish_reason"] == "max_new_tokens"


def test_parts_of_the_time_sum_to_the_wall_time(job: JobFolder) -> None:
    job.run()
    for name in job.names:
        meta = job.meta(name)
        assert len(meta["repeats"]) == 2
        for repeat in meta["repeats"]:
            assert sorted(repeat["time_us"]) == ["commit", "draft", "forward", "other", "verify"]
            assert sum(repeat["time_us"].values()) == repeat["wall_us"] > 0
            assert repeat["num_output_tokens"] == 4 * 12
    assert job.meta(job.names[2])["repeats"][0]["time_us"]["draft"] > 0


def test_artifacts_parser_reads_the_profile_lines(job: JobFolder) -> None:
    job.run()
    for name in job.names:
        found = PROFILE.findall((job.results / f"{name}.out").read_text())
        assert [(int(guid), float(latency)) for guid, latency in found] == [
            (row["guid"], float(row["latency_us"])) for row in job.rows(name)
        ]


def test_text_form_holds_prompt_and_output(job: JobFolder) -> None:
    job.run()
    decode = load(Path(job.placement["target"]["path"])).tokenizer.decode
    prompts = json.loads((job.root / "prompts.json").read_text())
    for name in job.names:
        text = (job.results / f"{name}.txt").read_text(encoding="utf-8")
        rows = job.rows(name)
        blocks = TXT_BLOCK.findall(text)
        assert len(blocks) == len(rows)
        for (latency, steps, ids), row in zip(blocks, rows, strict=True):
            assert (float(latency), int(steps)) == (row["latency_us"], row["num_target_steps"])
            token_ids = [int(token_id) for token_id in ids.split(",")]
            assert token_ids[row["num_prompt_tokens"] :] == row["output_token_ids"]
            assert f"token IDs: {ids}\n{prompts[row['prompt_index']]}{decode(row['output_token_ids'])}\n" in text


def test_second_call_serves_nothing(job: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    job.run()
    before = job.snapshot()
    assert len(before) == 12
    capsys.readouterr()
    assert job.run() == 0
    assert job.snapshot() == before
    assert capsys.readouterr().err == "treespec: 3 of 3 scenarios are done\n"


def test_only_missing_scenarios_are_served(job: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    scenarios, job.scenarios = job.scenarios, job.scenarios[:1]
    job.run()
    before = job.snapshot()
    capsys.readouterr()
    job.scenarios = scenarios
    assert job.run() == 0
    assert "treespec: 1 of 3 scenarios are done\n" in capsys.readouterr().err
    after = job.snapshot()
    assert {name: after[name] for name in before} == before
    assert job.complete() == job.names


def test_changed_scenario_supersedes_its_record_and_no_other(job: JobFolder) -> None:
    job.run()
    old = job.snapshot()
    tree = job.names[2]
    fp8 = job.meta(tree)["fingerprint"][:8]
    job.scenarios[2]["max_new_tokens"] = 5
    assert job.complete() == job.names[:2], "an old record must not pass as current"
    assert job.run() == 0
    new = job.snapshot()
    assert job.complete() == job.names
    assert {row["num_output_tokens"] for row in job.rows(tree)} == {5}
    for suffix in SUFFIXES:
        assert new[f"superseded/{tree}.{fp8}{suffix}"] == old[f"{tree}{suffix}"]
        for name in job.names[:2]:
            assert new[name + suffix] == old[name + suffix]


def test_setting_that_comes_back_is_measured_again_and_nothing_is_lost(job: JobFolder) -> None:
    job.scenarios = job.scenarios[:1]
    contents: set[bytes] = set()
    for max_new_tokens in (12, 5, 12, 5):
        job.change(max_new_tokens=max_new_tokens)
        assert job.run() == 0
        contents |= {data for _, data in job.snapshot().values()}
    assert {data for _, data in job.snapshot().values()} == contents
    assert len(job.snapshot()) == 4 * len(SUFFIXES)


@pytest.mark.parametrize("damage", ["last line lost", "line cut", "not text", "gone", "one line more"])
def test_damaged_rows_are_served_again(job: JobFolder, damage: str) -> None:
    job.run()
    before = job.snapshot()
    path = job.results / f"{job.names[1]}.jsonl"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    damaged = {
        "last line lost": b"".join(lines[:-1]),
        "line cut": data[:-20],
        "not text": data[:50] + b"\xff\xfe" + data[52:],
        "one line more": data + lines[0],
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    assert job.complete() == [job.names[0], job.names[2]]
    assert job.run() == 0
    assert job.complete() == job.names
    after = job.snapshot()
    untouched = [name for name in before if not name.startswith(job.names[1])]
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    if damage != "gone":
        assert damaged[damage] in [data for name, (_, data) in after.items() if name.startswith("superseded/")]


def test_meta_file_that_is_no_json_is_set_aside_and_served_again(job: JobFolder) -> None:
    job.run()
    (job.results / f"{job.names[0]}.meta.json").write_bytes(b'{"status": "ok"')
    assert job.complete() == job.names[1:]
    assert job.run() == 0
    assert job.complete() == job.names
    assert (job.results / "superseded" / f"{job.names[0]}.damaged.meta.json").read_bytes() == b'{"status": "ok"'


def fail_wide_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree scenario breaks in the middle of a pass, as a device does, with slots leased."""
    build = TreeBuilder.build

    def broken(builder: TreeBuilder) -> object:
        if len(builder) == 11:  # <2,2,1>
            raise RuntimeError("the device is on fire")
        return build(builder)

    monkeypatch.setattr(TreeBuilder, "build", broken)


def test_failed_scenario_is_told_and_the_others_are_served(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job.scenarios = [job.scenarios[2], *job.scenarios[:2]]  # the failing one first
    with monkeypatch.context() as broken:
        fail_wide_trees(broken)
        assert job.run() == 1
    told = capsys.readouterr().err
    assert f"treespec: {job.names[0]} failed: RuntimeError: the device is on fire\n" in told
    assert "treespec: 1 scenarios failed; the same command tries them again\n" in told
    assert job.complete() == job.names[1:]
    meta = job.meta(job.names[0])
    assert (meta["status"], meta["num_rows"]) == ("failed", 0)
    assert meta["error"] == "RuntimeError: the device is on fire"
    assert sorted(p.name for p in job.results.glob(f"{job.names[0]}*")) == [f"{job.names[0]}.meta.json"]
    before = job.snapshot()
    assert job.run() == 0
    assert job.complete() == job.names
    after = job.snapshot()
    served_before = [name for name in before if not name.startswith(job.names[0])]
    assert {name: after[name] for name in served_before} == {name: before[name] for name in served_before}
    assert job.rows(job.names[0])[0]["output_token_ids"] == job.rows(job.names[1])[0]["output_token_ids"]


def test_failure_in_a_later_repeat_leaves_no_record(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []

    def late(loaded: LoadedPlacement, scenario: Scenario, prompts: Sequence[Sequence[int]]) -> ServedPass:
        served.append(scenario.mode)
        if scenario.mode == "sequence" and served.count("sequence") == 2:
            raise RuntimeError("out of memory")
        return serve_pass(loaded, scenario, prompts)

    with monkeypatch.context() as broken:
        broken.setattr(serving_job, "serve_pass", late)
        assert job.run() == 1
    sequence = job.names[1]
    assert job.complete() == [name for name in job.names if name != sequence]
    assert (job.meta(sequence)["status"], len(job.meta(sequence)["repeats"])) == ("failed", 1)
    assert not (job.results / f"{sequence}.jsonl").exists()


@pytest.mark.parametrize("written", range(4))
@pytest.mark.parametrize("replaced", ["nothing", "another setting", "damaged rows", "a failure"])
def test_process_that_dies_while_writing_leaves_no_record_that_passes(
    job: JobFolder, written: int, replaced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies before the rename of each of the four files, over whatever stood there before."""
    job.scenarios = job.scenarios[:1]
    (name,) = job.names
    prepare(job, replaced, monkeypatch)
    with monkeypatch.context() as dying:
        dying.setattr(records, "write_atomically", write_then_die(written))
        with pytest.raises(KilledError):
            job.run()
    assert job.complete() == []
    assert job.run() == 0
    assert job.complete() == [name]
    assert len(job.rows(name)) == 8


class KilledError(BaseException):
    """What no ``except`` of the engine catches."""


def write_then_die(num_files: int, write: object = records.write_atomically) -> object:
    """The n-th file is not renamed; a kill leaves its temporary behind."""
    left = iter(range(num_files))

    def dying(path: Path, text: str) -> None:
        if next(left, None) is None:
            path.with_name(f".{path.name}.host.1.tmp").write_text(text)
            raise KilledError
        write(path, text)  # type: ignore[operator]

    return dying


def prepare(job: JobFolder, replaced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if replaced == "nothing":
        return
    if replaced == "a failure":
        with monkeypatch.context() as broken:
            broken.setattr(Proposals, "none", fail)
            assert job.run() == 1
        return
    job.run()
    if replaced == "another setting":
        job.change(max_new_tokens=7)
    else:
        os.truncate(job.results / f"{job.names[0]}.jsonl", 300)


def fail(*_: object) -> None:
    raise RuntimeError("out of memory")


def test_temporary_files_of_a_dead_process_count_for_nothing(job: JobFolder) -> None:
    job.results.mkdir()
    for suffix in SUFFIXES:
        (job.results / f".{job.names[0]}{suffix}.host.1.tmp").write_text("{}")
    assert job.complete() == []
    assert job.run() == 0
    assert job.complete() == job.names


def test_modes_that_are_compared_take_turns_and_begin_in_turn(
    job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    job.change(num_repeats=3)
    job.run()
    passes = [line.split()[2].rstrip(",") for line in progress_lines(capsys.readouterr().err)]
    short = [name.rsplit("-", 1)[1] for name in passes]
    assert short == [
        "incremental", "sequence", "tree",
        "sequence", "tree", "incremental",
        "tree", "incremental", "sequence",
    ]  # fmt: skip
    assert set(short) == set(MODES)


def progress_lines(err: str) -> Iterable[str]:
    return (line for line in err.splitlines() if line.startswith("treespec: ["))


def test_incremental_only_job_needs_no_draft(job: JobFolder) -> None:
    job.placement["drafts"] = []
    job.scenarios = job.scenarios[:1]
    assert job.run() == 0
    assert job.meta(job.names[0])["models"]["drafts"] == []


def test_num_prompts_takes_the_first(job: JobFolder) -> None:
    job.change(num_prompts=3, num_repeats=1)
    job.run()
    assert [row["prompt_index"] for row in job.rows(job.names[1])] == [0, 1, 2]
