"""transformers serves our incremental scenarios: records like ours, the same tokens, resumed, set aside when stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import peer_server
from engine.tests.jobs import JobFolder, use_own_locks
from treespec.metrics.records import SUFFIXES

MODELS = Path(__file__).parents[2] / "models/embedded/llama"
PROMPTS = ["def add(values):\n    ", "class Queue:\n    def __init__(self, size, items=None):\n        "]
OURS, THEIRS = "server_small-2_batchsize-incr_dec", "server_small-2_batchsize-transformers"
NUM_TOKENS = 8


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    """Incremental decoding of the shipped pair: two prompts of different lengths in one batch."""
    folder = JobFolder.create(tmp_path, MODELS / "target", MODELS / "draft", PROMPTS)
    entries = [{"prompt": PROMPTS[0], "category": "function"}, {"prompt": PROMPTS[1]}]
    (tmp_path / "prompts.json").write_text(json.dumps(entries), encoding="utf-8")
    folder.scenarios = [scenario for scenario in folder.scenarios if scenario["mode"] == "incremental"]
    folder.change(name=OURS, max_new_tokens=NUM_TOKENS)
    use_own_locks(folder.root / "tmp", monkeypatch)
    return folder


def serve(job: JobFolder) -> int:
    """Let the peer serve the job; the exit status."""
    return peer_server.main(job.write()[1:])


def test_records_are_like_ours_with_the_same_tokens(job: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run() == 0
    assert serve(job) == 0
    ours, theirs = job.rows(OURS), job.rows(THEIRS)
    assert [list(row) for row in theirs] == [list(row) for row in ours]
    assert [row["category"] for row in theirs] == ["function", None] * 2
    same = ("repeat", "guid", "prompt_index", "category", "num_prompt_tokens", "output_token_ids", "finish_reason")
    assert [[row[key] for key in same] for row in theirs] == [[row[key] for key in same] for row in ours]
    assert {row["num_target_steps"] for row in theirs} == {NUM_TOKENS}
    for first, second in (theirs[:2], theirs[2:]):
        assert first["latency_us"] == second["latency_us"] > 0, "a batch hands out its requests together"
    assert {path.name for path in job.results.glob(f"{THEIRS}.*")} == {f"{THEIRS}{suffix}" for suffix in SUFFIXES}

    meta, our_meta = job.meta(THEIRS), job.meta(OURS)
    assert sorted(meta) == sorted(our_meta)
    assert meta["models"]["target"] == our_meta["models"]["target"]
    assert {key: meta["environment"][key] for key in our_meta["environment"]} == our_meta["environment"]
    assert meta["environment"]["transformers"]
    for repeat, ours_of in zip(meta["repeats"], our_meta["repeats"], strict=True):
        assert repeat["num_target_rows"] == ours_of["num_target_rows"]
        assert sum(repeat["time_us"].values()) == repeat["wall_us"]
        assert repeat["num_output_tokens"] == len(PROMPTS) * NUM_TOKENS

    # Again: nothing is measured. Another setting: the old record is kept aside.
    before = job.snapshot()
    assert serve(job) == 0
    assert job.snapshot() == before
    assert "1 of 1 scenarios of transformers are done" in capsys.readouterr().err
    job.change(num_repeats=1)
    assert serve(job) == 0
    aside = f"superseded/{THEIRS}.{meta['fingerprint'][:8]}.jsonl"
    assert job.snapshot()[aside][1] == before[f"{THEIRS}.jsonl"][1]
    assert len(job.rows(THEIRS)) == len(PROMPTS)


def test_inflation_and_eos_are_as_in_our_own_run(job: JobFolder) -> None:
    job.placement["target"]["inflation"] = {"width_factor": 4, "num_layers": 5}
    job.change(ignore_eos=False, max_requests_per_batch=1, num_repeats=1)
    assert job.run() == 0
    assert serve(job) == 0
    assert [row["output_token_ids"] for row in job.rows(THEIRS)] == [row["output_token_ids"] for row in job.rows(OURS)]
    assert job.meta(THEIRS)["models"] == job.meta(OURS)["models"]


def test_a_failed_scenario_is_a_failed_record_and_tried_again(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def fail(*args: object) -> None:
            raise RuntimeError("the device went away")

        patched.setattr(peer_server, "_warm_up", fail)
        assert serve(job) == 1
    assert job.meta(THEIRS)["status"] == "failed"
    assert job.meta(THEIRS)["error"] == "RuntimeError: the device went away"
    assert serve(job) == 0
    assert job.meta(THEIRS)["status"] == "ok"


@pytest.mark.parametrize(
    ("placement", "scenario", "told"),
    [
        ({"tensor_parallel_degree": 2}, {}, "transformers is measured on one rank only; where: placement 'tiny'"),
        ({}, {"name": "plain"}, "no name for the record of transformers; where: scenario 'plain'"),
        ({}, {"stop_strings": ["\n"]}, "measured without stop strings"),
        ({}, {"num_prompts": 3}, "the prompt file is too short"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    job: JobFolder, capsys: pytest.CaptureFixture[str], placement: dict, scenario: dict, told: str
) -> None:
    job.placement.update(placement)
    job.change(**scenario)
    assert serve(job) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert told in line
    assert job.snapshot() == {}


def test_a_peer_that_is_not_installed_is_one_line(
    job: JobFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("benchmarks.peer_identity", "benchmarks.peer_server"):
        monkeypatch.setattr(f"{module}.peer_version", lambda peer: None)
    assert serve(job) == 2
    assert "error: transformers is not installed" in capsys.readouterr().err


def test_the_planner_and_the_peer_agree_on_fingerprints(job: JobFolder) -> None:
    from benchmarks.peer_identity import peer_scenarios
    from treespec.config import fingerprints, load_run_config

    assert serve(job) == 0
    config = load_run_config(job.config_file)
    (planned,) = peer_scenarios(config, fingerprints(config), "transformers")
    assert (planned.config.name, planned.fingerprint) == (THEIRS, job.meta(THEIRS)["fingerprint"])
    assert json.loads(job.config_file.read_text())["scenarios"][0]["name"] == planned.incremental
