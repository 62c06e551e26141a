"""Command line: the table of the original artifact's logs in, its figures 7 and 8 as PDF and PNG out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from figures.drawing.io import save_figure
from figures.drawing.style import RC
from figures.errors import FigureError
from figures.original.latency import draw_latency
from figures.original.logs import FAMILIES, Logs, read_logs
from figures.reading.published import read_published_ranges

_PAPER_DIR = Path(__file__).resolve().parents[2] / "paper"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one figure per family of experiments; returns 0, or 2 after one line on stderr where that is impossible."""
    parser = argparse.ArgumentParser(prog="python -m figures.original", description=__doc__)
    parser.add_argument(
        "--csv-dir", type=Path, required=True, help="folder of logs.csv, by python -m data_parsing artifact"
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--source", required=True, help="where the logs come from, for the caption")
    parser.add_argument("--paper-dir", type=Path, default=_PAPER_DIR, help="folder of the published numbers")
    arguments = parser.parse_args(argv)
    try:
        logs, published = read_logs(arguments.csv_dir), read_published_ranges(arguments.paper_dir)
        with mpl.rc_context(RC):
            for family in FAMILIES:
                own = Logs(tuple(log for log in logs.runs if log.family == family), logs.unknown)
                figure = draw_latency(family, own, published, arguments.source)
                for path in save_figure(figure, arguments.output_dir, f"{family}_latency"):
                    print(path)
    except FigureError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    return 0
