"""Of a researcher's figures, no text is cut or lies on another, and what cannot be read is one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from figures.cli import main
from tests.figures.drawn import cut_texts, overlapping_texts
from tests.figures.researcher_drawn import RESEARCHERS, draw
from tests.figures.researcher_files import Row, everything, half, offloading, sampling, server, unmeasured, write_tables

LONG: dict[str, Any] = {
    "target": "a target of a name that has many words",
    "target_description": "embedded LLaMA target " + "of many words " * 30 + "x" * 200,
    "draft_description": "embedded LLaMA draft " + "of many words " * 30,
    "device": "NVIDIA A10G with a name that does not end " * 4,
    "verifier": "a_verifier_of_a_name_without_spaces",
}
CASES: dict[str, list[Row]] = {
    "nothing planned": [],
    "nothing measured": unmeasured([*server((1,)), *sampling()]),
    "all": everything(),
    "half": half(everything()),
    "all sizes": [row for size in ("small", "medium", "large") for row in server((1, 16), size)],
    "long names": [row | LONG for row in half([*server((1, 2)), *offloading((1,))])],
    "one": server((1,))[1:2],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RESEARCHERS)
def test_no_text_is_cut_or_covered(tmp_path: Path, name: str, case: str) -> None:
    drawn = draw(name, tmp_path, CASES[case])
    assert cut_texts(drawn) == []
    assert overlapping_texts(drawn) == []


@pytest.mark.parametrize("name", RESEARCHERS)
def test_captions_are_short(tmp_path: Path, name: str) -> None:
    assert len(draw(name, tmp_path, server()).figure.texts) <= 6, "lines"


@pytest.mark.parametrize(
    ("figure", "table", "old", "new", "message"),
    [
        ("acceptance_by_depth", "acceptance", "num_offered", "offers", "columns are missing: num_offered"),
        ("acceptance_by_depth", "acceptance", "prompt_set", "prompts", "columns are missing: prompt_set"),
        ("accepted_lengths", "accepted_lengths", "cumulative_share", "sum", "columns are missing: cumulative_share"),
        ("tree_size_acceptance", "predictions", "num_nodes", "nodes", "columns are missing: num_nodes"),
        ("predicted_speedup", "predictions", "measured_ci_low", "low", "columns are missing: measured_ci_low"),
        ("predicted_speedup", "predictions", ",small,", ",tiny,", "size is 'tiny', allowed: small, medium, large"),
        ("verify_cost", "verify_costs", "time_ms,ratio", "time_ms,x", "columns are missing: ratio"),
        ("verify_cost", "verify_costs", ",draft_level,", ",draft,", "part is 'draft', allowed: target, draft_level"),
        ("verify_cost", "verify_costs", ",target,1,", ",target,3,", "rows must be 1 and more, each once"),
        ("break_even", "verify_costs", ",target,1,", ",target,2,", "rows must be 1 and more, each once"),
        ("break_even", "verify_costs", ",target,1,20.0", ",target,1,-2", "with times above 0"),
        ("break_even", "verify_costs", ",target,1,20.0", ",target,1,", "time_ms is blank"),
        ("break_even", "verify_costs", ",target,1,20.0", ",target,1,fast", "time_ms is not a number: 'fast'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figure: str, table: str, old: str, new: str, message: str
) -> None:
    path = write_tables(tmp_path / "csv", server((1,))) / f"{table}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    words = ["--csv-dir", str(tmp_path / "csv"), "--output-dir", str(tmp_path / "figures"), "--only", figure]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and f"{table}.csv" in line
    assert not (tmp_path / "figures").exists()
