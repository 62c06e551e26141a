"""Command line: plans and raw records in, CSV tables or a status out."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_parsing.errors import ParsingError
from data_parsing.original.artifact_logs import UNKNOWN_NAME, artifact_log_tables, read_artifact_logs, remarks
from data_parsing.plans.plan import load_plans
from data_parsing.progress import DEFAULT_RUN_COMMAND, progress_report, unplanned_report
from data_parsing.records.reading import Status, read_records
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.losslessness import losslessness_table
from data_parsing.tables.registry import build_tables, write_tables

COMMANDS = ("tables", "status", "artifact")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after one line on stderr if the caller gave it something unusable."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in (*COMMANDS, "-h", "--help"):
        words.insert(0, "tables")
    arguments = _parser().parse_args(words)
    try:
        {"tables": _tables, "status": _status, "artifact": _artifact}[arguments.command](arguments)
    except ParsingError as error:
        print(f"data_parsing: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_parsing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tables = commands.add_parser("tables", help="write every table (the default where no command is named)")
    status = commands.add_parser("status", help="print which scenarios are done, and the command that runs the rest")
    artifact = commands.add_parser("artifact", help="write the original artifact's tables from its .out files")
    for command in (tables, status):
        command.add_argument(
            "--plan", type=Path, nargs="+", action="extend", required=True, help="JSON files of planned scenarios"
        )
    for command in (tables, status, artifact):
        command.add_argument("--raw-dir", type=Path, required=True, help="folder of the records")
    for command in (tables, artifact):
        command.add_argument("--output-dir", type=Path, required=True, help="folder for the CSV files")
    tables.add_argument("--audit-dir", type=Path, help="folder of reports of treespec audit, for table losslessness")
    status.add_argument(
        "--run-command",
        default=DEFAULT_RUN_COMMAND,
        help="how the missing scenarios are run, {experiment} standing for theirs (default: %(default)s)",
    )
    return parser


def _tables(arguments: argparse.Namespace) -> None:
    plan = load_plans(arguments.plan)
    records = read_records(arguments.raw_dir, plan.scenarios)
    tables = build_tables(RecordSet(plan.tables, records))
    if arguments.audit_dir is not None:
        tables["losslessness"] = losslessness_table(arguments.audit_dir)
    for path in write_tables(tables, arguments.output_dir):
        print(path)
    counts = Counter(record.status for record in records)
    told = [f"{counts[status]} {status.value}" for status in Status if counts[status]]
    print(f"{len(records)} scenarios planned: {', '.join(told) or 'none'}", file=sys.stderr)


def _status(arguments: argparse.Namespace) -> None:
    records = read_records(arguments.raw_dir, load_plans(arguments.plan).scenarios)
    print(progress_report(records, arguments.run_command))
    for line in unplanned_report(arguments.raw_dir, records):
        print(line)


def _artifact(arguments: argparse.Namespace) -> None:
    folder = read_artifact_logs(arguments.raw_dir)
    if not folder.logs:
        raise ParsingError(
            f"{arguments.raw_dir}: no server_<size>-<n>_batchsize-<mode>.out or offloading_<size>_<n>.out file"
        )
    for path in write_tables(artifact_log_tables(folder), arguments.output_dir):
        print(path)
    said = {log.file_name: remarks(log) for log in folder.logs} | dict.fromkeys(folder.unknown, UNKNOWN_NAME)
    for file_name, remark in said.items():
        if remark:
            print(f"{file_name}: {remark}", file=sys.stderr)
