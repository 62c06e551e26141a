"""Command line: a results folder in, one HTML page and a description of the folder as an RO-Crate out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from report.crate import write_crate
from report.errors import ReportError
from report.files import write_text
from report.page import read_content, render


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and the crate; returns 0, or 2 after one line on stderr if the caller gave something unusable."""
    parser = argparse.ArgumentParser(prog="python -m report", description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="results folder of one platform")
    parser.add_argument("--output", type=Path, required=True, help="the page, an .html file")
    parser.add_argument(
        "--crate", action="store_true", help="write ro-crate-metadata.json into the results folder, too"
    )
    parser.add_argument("--config-dir", type=Path, default=Path("config"), help="folder of the configuration")
    parser.add_argument("--citation", type=Path, default=Path("CITATION.cff"), help="who made it, and its licence")
    parser.add_argument(
        "--run-command",
        default="snakemake {target}",
        help="how the workflow is called, {target} standing for the target (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        if not arguments.results.is_dir():
            raise ReportError(f"{arguments.results}: no such results folder; one is made by snakemake")
        content = read_content(arguments.results, arguments.config_dir, arguments.run_command, made_at)
        write_text(arguments.output, render(content))
        print(arguments.output)
        if arguments.crate:
            # After the page, whose checksum is in it.
            print(write_crate(arguments.results, content, arguments.citation))
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0
