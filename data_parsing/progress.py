"""The status of a plan in words: what is done, what is not, and the command that runs the rest."""

from __future__ import annotations

from collections.abc import Sequence

from data_parsing.records import Record, Status

_HEADINGS = {
    Status.OK: "done",
    Status.FAILED: "failed",
    Status.SUPERSEDED: "superseded",
    Status.INCOMPLETE: "incomplete",
    Status.MISSING: "missing",
}
DEFAULT_RUN_COMMAND = "snakemake {experiment}_experiments"


def progress_report(records: Sequence[Record], run_command: str = DEFAULT_RUN_COMMAND) -> str:
    """One heading with a count per status, the scenarios under it, and the commands for what is not done.

    ``run_command`` may hold ``{experiment}``.
    """
    lines = []
    for status, heading in _HEADINGS.items():
        of_status = [record for record in records if record.status == status]
        lines.append(f"{heading}: {len(of_status)}")
        lines += [_line(record) for record in of_status]
    open_experiments = dict.fromkeys(r.planned.experiment for r in records if r.status != Status.OK)
    commands = dict.fromkeys(run_command.replace("{experiment}", experiment) for experiment in open_experiments)
    lines += [f"to run the rest: {command}" for command in commands] or ["nothing left to run"]
    return "\n".join(lines)


def _line(record: Record) -> str:
    return f"  {record.planned.scenario}" + (f": {record.detail}" if record.detail else "")
