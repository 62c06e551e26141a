"""What may stand in claims.yaml, and one clear line for what may not; the command line around it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from claims.bootstrap import Estimate
from claims.claim import load_claims
from claims.cli import main
from claims.errors import ClaimError
from claims.output import COLUMNS, ClaimRow, text_table
from claims.rules import finding
from claims.statistics import Measured
from tests.claims.made_up import A10, G5, LAPTOP, PAPER, World, paper_world, write_platform

ROOT = Path(__file__).parents[2]
Claim = dict[str, Any]


def claim_file(folder: Path, **changes: Any) -> Path:
    """A file with one claim, of which ``changes`` replace keys."""
    claim: Claim = {
        "id": "X1",
        "source": "figure 0",
        "statement": "one is faster than the other",
        "kind": "algorithmic",
        "metric": "a ratio",
        "published": [1.5, 2.5],
        "measure": {
            "statistic": "ratio",
            "table": "server",
            "value": {"column": "per_token_latency_ms", "average": "median"},
            "numerator": {"mode": "incremental"},
            "denominator": {"mode": "tree"},
            "pair_by": ["size", "batch_size"],
        },
        "rule": {"type": "direction", "above": 1, "reason": "made up"},
    }
    hardware = {"name": "g5", "description": "A10s", "device": "cuda", "device_name": "A10"}
    data = {
        "paper_hardware": hardware | {"num_nodes": 2, "devices_per_node": 4},
        "paper_models": [{"target": "T", "draft": "D"}],
        "claims": [claim | changes],
    }
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def changed(key: str, **changes: Any) -> Callable[[Path], Path]:
    """The file with some keys of ``measure`` or ``rule`` changed."""
    return lambda folder: claim_file(
        folder, **{key: yaml.safe_load(claim_file(folder).read_text())["claims"][0][key] | changes}
    )


def part(folder: Path, **rule: Any) -> Any:
    """The one part of a claim with a rule."""
    (claim,) = load_claims(claim_file(folder, rule={"reason": "made up"} | rule)).claims
    return claim.parts[0]


def without_statistic(folder: Path) -> Path:
    path = claim_file(folder)
    path.write_text(path.read_text().replace("statistic: ratio", "target: x"))
    return path


REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (lambda folder: claim_file(folder, verdict="yes"), "X1.verdict: Extra inputs are not permitted"),
    (changed("measure", wehre={}), "X1.parts.0.measure.ratio.wehre: Extra inputs are not permitted"),
    (changed("measure", denominator={"mode": "incremental"}), "numerator and denominator are both {'mode': 'incr"),
    (without_statistic, "X1.parts.0.measure: statistic is missing"),
    (lambda folder: claim_file(folder, published=[2.5, 1.5]), "a range goes from its lower to its upper end"),
    (changed("measure", statistic="mode"), "does not match any of the expected tags"),
    (changed("measure", statistic="trend", axis="mode"), "axis 'mode' is none of pair_by"),
    (changed("measure", statistic="trend"), "X1.parts.0.measure.trend.axis: Field required"),
    (changed("measure", value={"column": "x", "average": "median", "weight": "w"}), "weight belongs to average: mean"),
    (changed("rule", toleranz=1), "X1.parts.0.rule.toleranz: Extra inputs are not permitted"),
    (changed("rule", below=1), "type direction with ['above', 'below']; a direction has one of"),
    (changed("rule", above=None), "type direction with no side; a direction has one of above, below, not_below"),
    (changed("rule", type="equal"), "type equal with ['above']"),
    (changed("rule", reason=""), "X1.parts.0.rule.reason: String should have at least 1 character"),
    (changed("rule", band_on="h100"), "X1: band_on 'h100': not 'g5'"),
    (changed("rule", band_with="our models"), "X1.parts.0.rule.band_with: Input should be 'paper models'"),
    (lambda folder: claim_file(folder, kind="magic"), "X1.kind: Input should be 'algorithmic' or 'hardware'"),
    (
        lambda folder: claim_file(folder, published="more", rule={"type": "equal", "reason": "made up"}),
        "published 'more' is no number to compare with",
    ),
    (lambda folder: claim_file(folder, published={"a": 1, "b": 2}), "parts"),
    (
        lambda folder: claim_file(folder, published={"a": 1, "b": 2}, parts={"a": {}}),
        "parts ['a'] of published ['a', 'b']",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path], message: str
) -> None:
    make(tmp_path)
    words = ["--csv-dir", str(tmp_path), "--paper-dir", str(tmp_path), "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--platform-file", str(write_platform(tmp_path, LAPTOP))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"claims: {tmp_path / 'claims.yaml'}: claims refused: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["claims: [", "\xff", "- a\n- b\n"])
def test_a_file_that_is_no_claims_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ClaimError) as raised:
        load_claims(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_parts_change_what_they_name_and_keep_the_rest(tmp_path: Path) -> None:
    parts = {"a": {"measure": {"where": {"k": 1}}}, "b": {"rule": {"above": 2}, "published": 7}}
    (claim,) = load_claims(claim_file(tmp_path, published=[1, 2], parts=parts)).claims
    first, second = claim.parts
    assert (first.measure.where, first.rule.above, first.published) == ({"k": 1}, 1, (1, 2))
    assert (second.measure.where, second.rule.above, second.published) == ({}, 2, 7)
    assert first.rule.reason == second.rule.reason == "made up"


def measured(low: float, high: float, *sides: Estimate) -> Measured:
    return Measured("", Estimate((low + high) / 2, low, high), sides=(sides[0], sides[1]) if sides else None)


@pytest.mark.parametrize(
    ("rule", "low", "high", "holds", "why"),
    [
        ({"above": 1}, 1.01, 2, True, "interval lies above 1"),
        ({"above": 1}, 0.99, 2, False, "interval includes 1"),
        ({"above": 1}, 1, 2, False, "interval includes 1"),
        ({"above": 1}, 0.5, 0.9, False, "interval lies below 1"),
        ({"below": 1}, 0.5, 0.9, True, "interval lies below 1"),
        ({"below": 0}, -1, 0, False, "interval includes 0"),
        ({"below": 1}, 1.1, 1.2, False, "interval lies above 1"),
        ({"not_below": 1}, 0.9, 1, True, "interval reaches 1"),
        ({"not_below": 1}, 1.2, 1.3, True, "interval reaches 1"),
        ({"not_below": 1}, 0.8, 0.99, False, "interval lies below 1"),
    ],
)
def test_directions(tmp_path: Path, rule: dict[str, float], low: float, high: float, holds: bool, why: str) -> None:
    found = finding(part(tmp_path, type="direction", **rule), measured(low, high), band_applies=False)
    assert (found.holds, found.why, found.of_range) == (holds, why, "")


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "holds"),
    [(1.4, 1.5, 0, True), (2.5, 9, 0, True), (1.3, 1.45, 0, False), (1.3, 1.45, 0.05, True), (2.6, 3, 0.05, False)],
)
def test_bands(tmp_path: Path, low: float, high: float, tolerance: float, holds: bool) -> None:
    rule = part(tmp_path, type="band", tolerance=tolerance)
    assert finding(rule, measured(low, high), band_applies=True).holds is holds
    beside = part(tmp_path, type="direction", above=1, band_on="g5", tolerance=tolerance)
    assert finding(beside, measured(low, high), band_applies=True).holds is holds
    assert finding(beside, measured(low, high), band_applies=False).holds is True


def test_a_band_of_both_sides_looks_at_each(tmp_path: Path) -> None:
    rule = part(tmp_path, type="band", band_of="sides")
    inside, outside = Estimate(2, 1.9, 2.1), Estimate(3, 2.9, 3.1)
    assert finding(rule, measured(9, 9, inside, inside), band_applies=True).holds
    assert not finding(rule, measured(2, 2, inside, outside), band_applies=True).holds
    assert not finding(rule, measured(2, 2, outside, inside), band_applies=True).holds


@pytest.mark.parametrize(("value", "holds"), [(1.5, True), (1.6, True), (1.61, False), (1.39, False)])
def test_equality_to_a_tolerance(tmp_path: Path, value: float, holds: bool) -> None:
    (claim,) = load_claims(
        claim_file(tmp_path, published=1.5, rule={"type": "equal", "tolerance": 0.1000001, "reason": "made up"})
    ).claims
    assert finding(claim.parts[0], measured(value, value), band_applies=False).holds is holds


def command(folder: Path, world: World, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    platform = write_platform(folder, G5)
    places = ["--csv-dir", str(world.write(folder / "csv")), "--platform-file", str(platform)]
    return subprocess.run(
        [sys.executable, "-m", "claims", *places, "--output-dir", str(folder), *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_strict_is_for_what_does_not_reproduce(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    world = paper_world()
    words = ["--platform-file", str(write_platform(tmp_path, LAPTOP)), "--output-dir", str(tmp_path)]
    words += ["--csv-dir", str(world.write(tmp_path / "csv"))]
    assert main([*words, "--paper-dir", str(PAPER), "--strict"]) == 0
    told = capsys.readouterr()
    assert told.err == "12 claims: 5 REPRODUCED, 0 NOT REPRODUCED, 7 NOT TESTABLE HERE\n"
    assert max(map(len, told.out.splitlines())) <= 100
    claim_file(tmp_path, rule={"type": "direction", "below": 1, "reason": "the other way round"})
    assert main([*words, "--paper-dir", str(tmp_path)]) == 0
    assert main([*words, "--paper-dir", str(tmp_path), "--strict"]) == 1
    shown = ["show", "--claims", str(tmp_path / "claims.csv")]
    assert main(shown) == 0
    assert main([*shown, "--strict"]) == 1
    assert "NOT REPRODUCED" in capsys.readouterr().out
    world.scenarios["server"] = missing_rows(world.scenarios["server"])
    world.write(tmp_path / "csv")
    assert main([*words, "--paper-dir", str(tmp_path), "--strict"]) == 0


def missing_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"status": "missing"} for row in rows]


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for seed in ("1", "2"):
        done = command(tmp_path, paper_world(A10), PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        written.append([(tmp_path / f"claims.{suffix}").read_bytes() for suffix in ("csv", "md")])
    assert written[0] == written[1]
    header, rule, *lines = written[0][1].decode().splitlines()
    assert header == f"| {' | '.join(COLUMNS)} |"
    assert len(lines) == 12 and all(line.count(" | ") == header.count(" | ") for line in (rule, *lines))
    assert not list(tmp_path.glob(".claims*"))
    with (tmp_path / "claims.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


@pytest.mark.parametrize("name", ["requests", ""])
def test_tables_without_requests_or_experiments_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tables = paper_world().write(tmp_path / "csv")
    for path in tables.glob(f"{name or '*'}.csv"):
        if name or path.stem not in ("token_equality", "success_rates"):
            path.unlink()
    words = ["--csv-dir", str(tables), "--paper-dir", str(PAPER), "--output-dir", str(tmp_path)]
    assert main([*words, "--platform-file", str(write_platform(tmp_path, LAPTOP))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ("requests.csv: no such table" if name else "no table of an experiment") in line


@pytest.mark.parametrize("platform", [{"device": "cpu"}, LAPTOP | {"device": "tpu"}, []])
def test_a_file_that_is_no_platform_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], platform: Any
) -> None:
    path = tmp_path / "platform.yaml"
    path.write_text(yaml.safe_dump(platform))
    words = ["--csv-dir", str(tmp_path), "--paper-dir", str(PAPER), "--output-dir", str(tmp_path)]
    assert main([*words, "--platform-file", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: not a platform" in line


def test_a_table_fits_its_width_and_keeps_every_word() -> None:
    row = ClaimRow("C1", "here", "a statement", "1", "2", "1 to 3", "5", "REPRODUCED", "for no reason " * 9)
    for width in (90, 140):
        text = text_table([row], width)
        assert max(map(len, text.splitlines())) <= width
        assert text.count("reason") == 9
