"""The status of a plan in words: what is done, what is not, and the command that runs the rest."""

from __future__ import annotations

from collections.abc import Sequence

from data_parsing.records import Record, Status
from data_parsing.token_equality import token_equality

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
        lines += [_line(record, records) for record in of_status]
    open_experiments = dict.fromkeys(r.planned.experiment for r in records if r.status != Status.OK)
    commands = dict.fromkeys(run_command.replace("{experiment}", experiment) for experiment in open_experiments)
    lines += [f"to run the rest: {command}" for command in commands] or ["nothing left to run"]
    return "\n".join(lines)


def _line(record: Record, records: Sequence[Record]) -> str:
    remarks = [_functional_remark(record, records) if record.planned.is_functional else "", record.detail]
    told = "; ".join(filter(None, remarks))
    return f"  {record.planned.scenario}" + (f": {told}" if told else "")


def _functional_remark(record: Record, records: Sequence[Record]) -> str:
    """What there is to say where times mean nothing: whether the tokens are right."""
    equality = token_equality(record, records)
    if equality is None:
        return "functional"
    return (
        f"functional, {equality.num_identical} of {equality.num_compared} prompts as incremental decoding writes them"
    )
