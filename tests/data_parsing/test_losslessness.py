"""Table ``losslessness`` from the report that ``treespec audit`` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_parsing.tables.losslessness import SCHEMA, losslessness_table

Report = dict[str, Any]


def report() -> Report:
    """The parts of a report that are read, in the audit's own words."""
    case = {"verifier": "mss", "topology": "<2>", "vocab_size": 4, "reason": None}
    run = {"selection": "iid", "sampling": "temperature 0.7, top_k 3", "status": "lossless", "num_outcomes": 28}
    refused = {"selection": "iid + top_k", "sampling": "temperature 1", "status": "refused", "num_outcomes": 0}
    cases = [case | run | {"total_variation": 2e-16}, case | refused | {"total_variation": None}]
    control = {"name": "p/q on top-k children", "verifier": "mss", "topology": "<2>", "num_outcomes": 25}
    return {
        "settings": {"temperature": 0.8},
        "holds": True,
        "rows": [
            {"check": "certificate", "subject": "mss, iid", "holds": True, "details": {"cases": cases}},
            {
                "check": "negative control",
                "subject": "p/q on top-k children, mss <2>",
                "holds": True,
                "details": control | {"total_variation": 0.45, "is_caught": True},
            },
            {"check": "greedy equality", "subject": "mss, iid <2,2,1>", "holds": True, "details": {"num_tokens": 256}},
            {
                "check": "target's distribution",
                "subject": "mss, iid <2,2>",
                "holds": False,
                "details": {"p_value": 1e-9, "total_variation": 0.3},
            },
            {"check": "reported q", "subject": "iid <1,1>", "holds": True, "details": {"p_value": 0.5}},
        ],
    }


def table(folder: Path, change: Callable[[Report], Any] = lambda data: None) -> list[dict[str, Any]]:
    data = report()
    change(data)
    folder.mkdir(exist_ok=True)
    (folder / "losslessness.json").write_text(json.dumps(data))
    frame = losslessness_table(folder)
    assert list(frame) == list(SCHEMA)
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def test_a_row_per_case_of_every_check(tmp_path: Path) -> None:
    rows = table(tmp_path)
    told = [(row["check"], row["verifier"], row["contract"], row["topology"], row["verdict"]) for row in rows]
    assert told == [
        ("certificate", "mss", "iid", "<2>", "lossless"),
        ("certificate", "mss", "iid + top_k", "<2>", "refused"),
        ("negative control", "mss", "p/q on top-k children", "<2>", "caught"),
        ("greedy equality", "mss", "iid", "<2,2,1>", "holds"),
        ("target's distribution", "mss", "iid", "<2,2>", "fails"),
        ("reported q", None, "iid", "<1,1>", "holds"),
    ]
    assert [row["temperature"] for row in rows] == [0.7, 1, None, 0, 0.8, 0.8]
    assert [row["is_lossless_claimed"] for row in rows] == ["true", "false", "false", "true", "true", "true"]
    # The distance of a sample is noise: only its test says something.
    assert [row["num_outcomes"] for row in rows] == [28, 0, 25, None, None, None]
    assert [row["p_value"] for row in rows] == [None, None, None, None, 1e-9, 0.5]
    assert rows[2]["total_variation"] == 0.45 and rows[4]["total_variation"] is None


def test_what_is_broken_is_told_as_such(tmp_path: Path) -> None:
    def spoil(data: Report) -> None:
        data["rows"][0]["details"]["cases"][0] |= {"status": "LOSSY", "total_variation": 0.1}
        data["rows"][1]["details"]["is_caught"] = False

    rows = table(tmp_path, spoil)
    assert (rows[0]["verdict"], rows[2]["verdict"]) == ("lossy", "missed")


def test_a_check_that_was_not_run_has_no_row(tmp_path: Path) -> None:
    not_run = {"check": "pair of models", "subject": "", "found": "not run: no pair", "holds": None, "details": {}}
    assert len(table(tmp_path, lambda data: data["rows"].append(not_run))) == 6


def test_without_an_audit_the_table_has_its_columns(tmp_path: Path) -> None:
    frame = losslessness_table(tmp_path / "absent")
    assert (list(frame), len(frame)) == (list(SCHEMA), 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("settings"),
        lambda data: data.update(rows=7),
        lambda data: data["rows"][2].update(subject="nonsense"),
        lambda data: data["rows"][0]["details"]["cases"][0].update(sampling="hot"),
    ],
)
def test_a_damaged_report_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Report], Any]
) -> None:
    assert table(tmp_path, change) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'losslessness.json'}: left out: not the report of an audit")
