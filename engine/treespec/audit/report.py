"""What an audit found: rows of a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from treespec.audit.certificate import TOLERANCE, CertificateRow, Status
from treespec.audit.controls import ControlRow
from treespec.files import write_atomically

_COLUMNS = ("check", "subject", "found", "allowed", "holds")


@dataclass(frozen=True)
class AuditRow:
    """One promise, put to the test."""

    check: str
    subject: str
    found: str
    allowed: str
    holds: bool | None  # None: not run
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def not_run(cls, check: str, reason: str) -> AuditRow:
        """A check that this run leaves out."""
        return cls(check, "", f"not run: {reason}", "", None)


def certificate_rows(rows: Sequence[CertificateRow]) -> list[AuditRow]:
    """One row per verifier and selection, portfolios together: the worst of its cases."""
    groups: dict[tuple[str, str], list[CertificateRow]] = {}
    for row in rows:
        how = "portfolios" if "+" in row.selection else row.selection
        groups.setdefault((row.verifier, how), []).append(row)
    return [_certificate_row(f"{verifier}, {how}", group) for (verifier, how), group in groups.items()]


def _certificate_row(subject: str, group: Sequence[CertificateRow]) -> AuditRow:
    details = {"cases": [asdict(row) for row in group]}
    run = [row for row in group if row.total_variation is not None]
    if not run:
        return AuditRow("certificate", subject, "refuses, as it declares", "", None, details)
    worst = max(row.total_variation for row in run if row.total_variation is not None)
    found = f"TV {worst:.1e} in {len(run)} cases, {sum(row.num_outcomes for row in run)} outcomes"
    holds = all(row.status is Status.LOSSLESS for row in run)
    return AuditRow("certificate", subject, found, f"TV below {TOLERANCE:.0e}", holds, details)


def control_row(row: ControlRow) -> AuditRow:
    """A mistake, which must be seen."""
    return AuditRow(
        check="negative control",
        subject=f"{row.name}, {row.verifier} {row.topology}",
        found=f"TV {row.total_variation:.3f}, done right {row.right_total_variation:.1e}",
        allowed=f"TV above {TOLERANCE:.0e}: caught",
        holds=row.is_caught,
        details=asdict(row),
    )


def audit_table(rows: Sequence[AuditRow]) -> str:
    """Aligned columns."""
    cells = [_COLUMNS, *((row.check, row.subject, row.found, row.allowed, _answer(row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def write_audit_json(rows: Sequence[AuditRow], about: Mapping[str, Any], path: Path) -> None:
    """Every row with its numbers, and what was audited. Raises OutputError."""
    report = {**about, "holds": all_hold(rows), "rows": [asdict(row) for row in rows]}
    write_atomically(path, json.dumps(report, indent=1) + "\n")


def all_hold(rows: Sequence[AuditRow]) -> bool:
    """Whether no promise was found broken."""
    return all(row.holds is not False for row in rows)


def _answer(row: AuditRow) -> str:
    return {True: "yes", False: "NO", None: ""}[row.holds]
