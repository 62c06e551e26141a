"""Records: kept while current, set aside when superseded or damaged, never mistaken for whole ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.tests.jobs import JobFolder
from treespec.config import Scenario
from treespec.metrics import records
from treespec.metrics.records import SUFFIXES
from treespec.serving import job as serving_job
from treespec.serving.build import LoadedPlacement
from treespec.serving.passes import ServedPass, serve_pass
from treespec.tree import Proposals, TreeBuilder


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


@pytest.mark.parametrize(
    "damage", ["last line lost", "line cut", "not text", "gone", "one line more", "a folder", "another number"]
)
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
        "another number": data.replace(b'"num_output_tokens": 12', b'"num_output_tokens": -5', 1),
    }
    if damage in ("gone", "a folder"):
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    else:
        assert damaged[damage] != data
        path.write_bytes(damaged[damage])
    assert job.complete() == [job.names[0], job.names[2]]
    assert job.run() == 0
    assert job.complete() == job.names
    after = job.snapshot()
    untouched = [name for name in before if not name.startswith(job.names[1])]
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    if damage in damaged:
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
