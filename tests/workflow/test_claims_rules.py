"""Verdicts from the workflow: they start no experiment, and the audit's report outlives what it found broken."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.workflow.project import Project, jobs


def audit_report(project: Project, total_variation: float) -> Path:
    """A report of one enumerated case."""
    case = {"verifier": "mss", "selection": "iid", "topology": "<2>", "sampling": "temperature 1"}
    case |= {"status": "LOSSY", "num_outcomes": 9, "total_variation": total_variation}
    row = {"check": "certificate", "subject": "mss, iid", "holds": False, "details": {"cases": [case]}}
    path = project.folder / "results/tiny/audit/losslessness.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"settings": {"temperature": 0.8}, "holds": False, "rows": [row]}))
    return path


def test_judging_starts_no_experiment_and_no_audit(project: Project) -> None:
    done = project.snakemake("--dry-run", "claims")
    assert done.returncode == 0, done.stdout
    assert jobs(done.stdout) == {"parse": 1, "judge_claims": 1, "claims": 1}
    audit = project.snakemake("--dry-run", "audit_losslessness")
    assert jobs(audit.stdout).keys() == {"check_machine", "engine_wheel", "audit_losslessness"}


@pytest.mark.slow
def test_verdicts_are_printed_and_strict_fails_where_one_is_not_reproduced(project: Project) -> None:
    done = project.snakemake("claims")
    assert done.returncode == 0, done.stdout
    assert "0 NOT REPRODUCED, 12 NOT TESTABLE HERE" in done.stdout
    assert project.snakemake("claims_strict").returncode == 0
    report = audit_report(project, total_variation=0.25)
    strict = project.snakemake("claims_strict")
    assert strict.returncode == 1, strict.stdout
    assert "1 NOT REPRODUCED, 11 NOT TESTABLE HERE" in strict.stdout
    with (project.folder / "results/tiny/claims.csv").open(newline="") as file:
        (claim,) = (row for row in csv.DictReader(file) if row["id"] == "C12")
    assert claim["verdict"] == "NOT REPRODUCED"
    assert report.is_file() and project.raw.exists() is False
