"""A record counts only if it is whole and is what was planned; everything else gets a status and never an error."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from data_parsing.errors import ParsingError
from data_parsing.plans.plan import PlannedScenario, load_plans
from data_parsing.records.reading import Record, Status, read_record, read_records
from tests.data_parsing.record_files import SyntheticScenario, write_plan

TREE = SyntheticScenario(mode="tree", batch_size=2)


def planned(scenario: SyntheticScenario) -> PlannedScenario:
    """It as a plan has it."""
    with tempfile.TemporaryDirectory() as folder:
        (found,) = load_plans([write_plan(Path(folder) / "plan.json", [scenario])]).scenarios
    return found


def read(raw_dir: Path, scenario: SyntheticScenario = TREE) -> Record:
    return read_record(raw_dir, planned(scenario))


def test_whole_record(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    record = read(tmp_path)
    assert (record.status, record.detail) == (Status.OK, "")
    assert record.measurement is not None
    assert len(record.measurement.requests) == 8
    assert record.measurement.provenance.device == "Example CPU @ 2.0GHz"
    assert record.measurement.provenance.prompts == "mixed.json"
    assert [repeat.num_target_steps for repeat in record.measurement.repeats] == [4, 4]


def test_drafts_are_described(tmp_path: Path) -> None:
    drafts = [{"description": "one, synthetic weights"}, {"description": "two"}]
    TREE.write(tmp_path, models=TREE.meta()["models"] | {"drafts": drafts})
    measurement = read(tmp_path).measurement
    assert measurement is not None
    assert measurement.provenance.draft_description == "one, synthetic weights and two"
    TREE.write(tmp_path, models=TREE.meta()["models"] | {"drafts": "none"})
    assert read(tmp_path).status == Status.INCOMPLETE


def test_accelerator_is_named_by_its_device(tmp_path: Path) -> None:
    gpu = TREE.with_(device="NVIDIA A10G")
    gpu.write(tmp_path)
    measurement = read(tmp_path, gpu).measurement
    assert measurement is not None
    assert measurement.provenance.device == "NVIDIA A10G"


def test_record_without_commit_counts(tmp_path: Path) -> None:
    TREE.with_(commit=None).write(tmp_path)
    measurement = read(tmp_path).measurement
    assert measurement is not None
    assert measurement.provenance.commit == "unknown"


def test_missing_folder_holds_nothing(tmp_path: Path) -> None:
    records = read_records(tmp_path / "raw", [planned(TREE)])
    assert [record.status for record in records] == [Status.MISSING]


def test_raw_folder_that_is_a_file_is_the_callers_error(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("")
    with pytest.raises(ParsingError, match="not a folder"):
        read_records(tmp_path / "raw", [planned(TREE)])


def test_failed_record_tells_its_error_in_one_line(tmp_path: Path) -> None:
    TREE.write_failure(tmp_path, "out of memory\n  at step 3")
    record = read(tmp_path)
    assert (record.status, record.detail) == (Status.FAILED, "out of memory at step 3")


def test_other_fingerprint_is_superseded_even_if_it_failed(tmp_path: Path) -> None:
    TREE.with_(fingerprint="a" * 64).write_failure(tmp_path, "out of memory")
    record = read(tmp_path)
    assert record.status == Status.SUPERSEDED
    assert "aaaaaaaa" in record.detail and "ffffffff" in record.detail


def test_record_in_the_superseded_folder(tmp_path: Path) -> None:
    old = TREE.with_(fingerprint="a" * 64)
    old.write(tmp_path)
    old.supersede(tmp_path)
    assert read(tmp_path).status == Status.SUPERSEDED
    (tmp_path / "superseded" / f"{TREE.name}-width_3.rest.meta.json").write_text("{}")
    # The name of another scenario begins with this one's.
    assert read(tmp_path, TREE.with_(settings={"width": "3"})).status == Status.MISSING


@pytest.mark.parametrize("mark", ["aaaaaaaa", "aaaaaaaa.2", "damaged"])
def test_every_name_that_the_engine_gives_aside(tmp_path: Path, mark: str) -> None:
    (tmp_path / "superseded").mkdir()
    (tmp_path / "superseded" / f"{TREE.name}.{mark}.meta.json").write_text("{}")
    assert read(tmp_path).status == Status.SUPERSEDED


def test_new_record_counts_beside_a_superseded_one(tmp_path: Path) -> None:
    old = TREE.with_(fingerprint="a" * 64)
    old.write(tmp_path)
    old.supersede(tmp_path)
    TREE.write(tmp_path)
    assert read(tmp_path).status == Status.OK


def test_rows_without_meta_are_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    TREE.meta_json(tmp_path).unlink()
    assert read(tmp_path).status == Status.INCOMPLETE


def test_meta_without_rows_is_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    TREE.jsonl(tmp_path).unlink()
    assert read(tmp_path).status == Status.INCOMPLETE


@pytest.mark.parametrize("num_rows", [0, 7])
def test_fewer_rows_than_announced_are_incomplete(tmp_path: Path, num_rows: int) -> None:
    TREE.write(tmp_path, rows=TREE.rows()[:num_rows])
    record = read(tmp_path)
    assert (record.status, record.detail) == (Status.INCOMPLETE, f".jsonl holds {num_rows} rows of 8")


def test_more_rows_than_announced_are_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path, num_rows=7)
    assert read(tmp_path).status == Status.INCOMPLETE


def test_rows_that_are_not_as_they_were_written_are_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    digest = hashlib.sha256(TREE.jsonl(tmp_path).read_bytes()).hexdigest()
    TREE.write(tmp_path, rows_sha256=digest)
    assert read(tmp_path).status == Status.OK
    slower = [row | {"latency_us": 2 * row["latency_us"]} for row in TREE.rows()]
    TREE.write(tmp_path, rows=slower, rows_sha256=digest)
    record = read(tmp_path)
    assert (record.status, record.detail) == (
        Status.INCOMPLETE,
        ".jsonl is not as it was written: its sha256 is another",
    )


def test_same_request_twice_is_incomplete(tmp_path: Path) -> None:
    rows = TREE.rows()
    TREE.write(tmp_path, rows=[*rows[:-1], rows[0]])
    assert read(tmp_path).status == Status.INCOMPLETE


def test_every_request_as_often_as_the_others_is_a_batch_of_equal_ones(tmp_path: Path) -> None:
    rows = TREE.rows()
    TREE.write(tmp_path, rows=[*rows, *rows], num_rows=2 * len(rows))
    assert read(tmp_path).status == Status.OK


def test_every_truncation_of_the_rows_is_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    content = TREE.jsonl(tmp_path).read_bytes()
    for length in range(0, len(content) - 1, 97):
        TREE.jsonl(tmp_path).write_bytes(content[:length])
        assert read(tmp_path).status == Status.INCOMPLETE
    # The last line is whole without its line break.
    TREE.jsonl(tmp_path).write_bytes(content[:-1])
    assert read(tmp_path).status == Status.OK


def test_every_truncation_of_the_meta_is_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    content = TREE.meta_json(tmp_path).read_bytes()
    for length in range(0, len(content), 53):
        TREE.meta_json(tmp_path).write_bytes(content[:length])
        assert read(tmp_path).status == Status.INCOMPLETE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("repeat", -1),
        ("prompt_index", True),
        ("prompt_index", 10**30),
        ("output_token_ids", [1, 2]),
        ("output_token_ids", None),
        ("num_output_tokens", "36"),
        ("accepted_per_step", [1.5]),
        ("num_draft_tokens", None),
        ("latency_us", float("nan")),
        ("latency_us", -5.0),
        ("latency_us", "fast"),
    ],
)
def test_damaged_row_is_named(tmp_path: Path, key: str, value: Any) -> None:
    rows = TREE.rows()
    rows[3][key] = value
    TREE.write(tmp_path, rows=rows)
    record = read(tmp_path)
    assert record.status == Status.INCOMPLETE
    assert "line 4" in record.detail


@pytest.mark.parametrize("line", ["", "null", "[1]", "{", "\udcff"])
def test_line_that_is_no_object_is_incomplete(tmp_path: Path, line: str) -> None:
    TREE.write(tmp_path)
    with TREE.jsonl(tmp_path).open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(line + "\n")
    assert read(tmp_path).status == Status.INCOMPLETE


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"status": "fine"},
        {"status": None},
        {"fingerprint": 5},
        {"num_rows": "8"},
        {"config": {}},
        {"models": {"target": {}}},
        {"environment": None},
        {"repeats": []},
        {"repeats": [{"wall_us": 1.0}]},
    ],
)
def test_meta_that_breaks_the_format_is_incomplete(tmp_path: Path, changes: dict[str, Any]) -> None:
    TREE.write(tmp_path, **changes)
    record = read(tmp_path)
    assert record.status == Status.INCOMPLETE
    assert record.detail


def test_meta_that_is_no_object_is_incomplete(tmp_path: Path) -> None:
    TREE.write(tmp_path)
    TREE.meta_json(tmp_path).write_text(json.dumps([1]))
    assert read(tmp_path).status == Status.INCOMPLETE
