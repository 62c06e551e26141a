"""Command line: tables and the paper's claims in, a verdict on each claim out."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from claims.claim import load_claims
from claims.errors import ClaimError
from claims.judge import Place, Verdict, judged_parts
from claims.output import ClaimRow, claim_row, read_rows, summary, text_table, write_rows
from claims.setting import load_platform
from claims.tables import Tables

COMMANDS = ("judge", "show")
DEFAULT_RUN_COMMAND = "snakemake {target}"
_WIDTH_ELSEWHERE = (160, 24)  # where no terminal tells its own


def main(argv: Sequence[str] | None = None) -> int:
    """Judge or show; returns 0, with --strict 1 if a claim is not reproduced, 2 after one line on unusable input."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in (*COMMANDS, "-h", "--help"):
        words.insert(0, "judge")
    arguments = _parser().parse_args(words)
    try:
        rows = _judge(arguments) if arguments.command == "judge" else read_rows(arguments.claims)
    except ClaimError as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    print(text_table(rows, shutil.get_terminal_size(_WIDTH_ELSEWHERE).columns))
    print(summary(rows), file=sys.stderr)
    return int(arguments.strict and any(row.verdict == Verdict.NOT_REPRODUCED for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m claims", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    judge = commands.add_parser("judge", help="write and print the verdicts (the default where no command is named)")
    judge.add_argument("--csv-dir", type=Path, required=True, help="folder of the tables")
    judge.add_argument("--paper-dir", type=Path, default=Path("paper"), help="folder of claims.yaml")
    judge.add_argument("--platform-file", type=Path, required=True, help="the platform as it was run")
    judge.add_argument("--output-dir", type=Path, required=True, help="folder for claims.csv and claims.md")
    judge.add_argument(
        "--run-command",
        default=DEFAULT_RUN_COMMAND,
        help="how missing records are made, {target} standing for theirs (default: %(default)s)",
    )
    show = commands.add_parser("show", help="print the verdicts of a claims.csv")
    show.add_argument("--claims", type=Path, required=True, metavar="CLAIMS.csv")
    for command in (judge, show):
        command.add_argument(
            "--strict",
            action="store_true",
            help="status 1 if a claim is NOT REPRODUCED; what is not testable is no fault",
        )
    return parser


def _judge(arguments: argparse.Namespace) -> list[ClaimRow]:
    claims = load_claims(arguments.paper_dir / "claims.yaml")
    place = Place(claims, Tables(arguments.csv_dir), load_platform(arguments.platform_file), arguments.run_command)
    rows = [claim_row(claim, judged_parts(claim, place)) for claim in claims.claims]
    write_rows(rows, arguments.output_dir)
    return rows
