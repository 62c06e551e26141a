"""``treespec run``: what the records of a job hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.tests.conftest import ROOT
from engine.tests.decoding import load
from engine.tests.jobs import MODES, JobFolder
from treespec.metrics.records import SUFFIXES

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


def test_rows_hold_the_category_of_their_prompt(job: JobFolder) -> None:
    entries = [{"prompt": "abc", "category": "letters"}, {"prompt": "b"}, {"prompt": "c", "category": "letter"}]
    (job.root / "prompts.json").write_text(json.dumps(entries))
    job.change(batch_composition="repeated", num_repeats=1)
    assert job.run() == 0
    for name in job.names:
        found = [(row["prompt_index"], row["category"]) for row in job.rows(name)]
        assert found == [(0, "letters"), (0, "letters"), (1, None), (1, None), (2, "letter"), (2, "letter")]


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
            assert sorted(repeat["time_us"]) == ["build", "commit", "draft", "forward", "other", "verify"]
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


def test_repeated_batches_name_the_prompt_of_every_request(job: JobFolder) -> None:
    job.change(batch_composition="repeated", num_prompts=2, num_repeats=1)
    assert job.run() == 0
    for name in job.names:
        rows = job.rows(name)
        assert [row["prompt_index"] for row in rows] == [0, 0, 1, 1]
        assert [row["guid"] for row in rows] == [1_000_000, 1_000_001, 1_000_002, 1_000_003]
        assert rows[0]["output_token_ids"] == rows[1]["output_token_ids"] != rows[2]["output_token_ids"]
