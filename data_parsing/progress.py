"""The status of a plan in words: what is done, what is not and why, and the commands that run the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_parsing.records.reading import Record, Status
from data_parsing.tables.token_equality import token_equality

_HEADINGS = {
    Status.OK: "done",
    Status.FAILED: "failed",
    Status.SUPERSEDED: "superseded",
    Status.INCOMPLETE: "incomplete",
    Status.MISSING: "missing",
}
DEFAULT_RUN_COMMAND = "snakemake {experiment}_experiments"
MAX_NAMES = 12  # under a heading; failed and incomplete ones have reasons, so that more of them are worth reading
MAX_REASONS = 40


def progress_report(records: Sequence[Record], run_command: str = DEFAULT_RUN_COMMAND) -> str:
    """Counts per placement, then a heading per status with names and reasons, and the commands for what is not done.

    ``run_command`` may hold ``{experiment}``.
    """
    lines = [*_counts(records)] if records else ["nothing is planned"]
    for status, heading in _HEADINGS.items():
        of_status = [record for record in records if record.status == status]
        lines.append(f"{heading}: {len(of_status)}")
        if status != Status.OK:
            limit = MAX_REASONS if status in (Status.FAILED, Status.INCOMPLETE) else MAX_NAMES
            lines += _limited([_line(record) for record in of_status], limit)
    lines += _functional(records)
    open_experiments = dict.fromkeys(r.planned.experiment for r in records if r.status != Status.OK)
    commands = dict.fromkeys(run_command.replace("{experiment}", experiment) for experiment in open_experiments)
    lines += [f"to run the rest: {command}" for command in commands] or ["nothing left to run"]
    if any(record.status == Status.INCOMPLETE for record in records):
        lines.append("what is incomplete even after that: delete its .meta.json, and it is measured anew")
    return "\n".join(lines)


def unplanned_report(raw_dir: Path, records: Sequence[Record]) -> list[str]:
    """A line on records that lie beside those of the plan: of another configuration, in no table and no figure."""
    planned = {record.planned.scenario for record in records}
    found = sorted({path.name.removesuffix(".meta.json") for path in raw_dir.glob("*.meta.json")} - planned)
    return [f"not planned here, in no table: {len(found)} records in {raw_dir} ({found[0]}, ...)"] if found else []


def _counts(records: Sequence[Record]) -> list[str]:
    """A line per placement; a dot stands for none."""
    jobs = dict.fromkeys((record.planned.experiment, record.planned.placement) for record in records)
    rows = [["experiment", "placement", "planned", *_HEADINGS.values()]]
    for experiment, placement in jobs:
        of_job = [r for r in records if (r.planned.experiment, r.planned.placement) == (experiment, placement)]
        counts = Counter(record.status for record in of_job)
        numbers = [len(of_job), *(counts[status] for status in _HEADINGS)]
        rows.append([experiment, placement or "-", *(str(number or ".") for number in numbers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    """Names to the left, numbers to the right."""
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column < 2 else cell.rjust(width)


def _line(record: Record) -> str:
    return f"  {record.planned.scenario}" + (f": {record.detail}" if record.detail else "")


def _limited(lines: Sequence[str], limit: int) -> list[str]:
    more = len(lines) - limit
    return [*lines[:limit], *([f"  and {more} more"] if more > 0 else [])]


def _functional(records: Sequence[Record]) -> list[str]:
    """What there is to say where times mean nothing: whether the tokens are right."""
    equalities = {
        record.planned.scenario: token_equality(record, records) for record in records if record.planned.is_functional
    }
    compared = {name: equality for name, equality in equalities.items() if equality is not None}
    if not equalities:
        return []
    differing = [
        f"  {name}: {equality.num_identical} of {equality.num_compared} prompts as incremental decoding writes them"
        for name, equality in compared.items()
        if equality.num_identical < equality.num_compared
    ]
    alike = len(compared) - len(differing)
    told = f"{alike} of {len(compared)} compared ones write what incremental decoding writes"
    if not compared:
        told = "none compared"
    return [f"functional: {len(equalities)}, {told}", *_limited(differing, MAX_REASONS)]
