"""Command line: a folder of CSV tables in, figures as PDF and PNG out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from figures.drawing.io import save_figure
from figures.drawing.style import RC
from figures.errors import FigureError
from figures.gallery import FIGURES
from figures.reading.sources import Sources

_PAPER_DIR = Path(__file__).resolve().parents[1] / "paper"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figures; returns 0, or 2 after one line on stderr if the caller gave it something unusable."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("--csv-dir", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--only", action="append", choices=list(FIGURES), help="draw this figure; may be repeated")
    parser.add_argument("--paper-dir", type=Path, default=_PAPER_DIR, help="folder of the published numbers")
    arguments = parser.parse_args(argv)
    sources = Sources(arguments.csv_dir, arguments.paper_dir)
    try:
        with mpl.rc_context(RC):
            for name in arguments.only or FIGURES:
                for path in save_figure(FIGURES[name](sources), arguments.output_dir, name):
                    print(path)
    except FigureError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    return 0
