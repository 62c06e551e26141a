"""Writes the results section of a Markdown file anew: small pictures of figures and the table of claims.

python -m report.readme [--results results/laptop] [--readme README.md] [--images docs/images]
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""What stands between these two lines is replaced."""

FIGURES = {
    "server_latency": "Figure 7: latency per token by mode and batch size",
    "offloading_speedup": "Figure 8: speed-up with weights streamed from disk",
    "tokens_per_step_cdf": "Figure 9: tokens per step over the prompts, by tree width",
    "width_latency": "Figure 10: latency by tree width and batch size",
    "parallel_decoding": "Figure 11: one tree verified as a tree and as sequences",
    "rank_success": "Table 1: the target's token among the draft's first k",
    "tokens_per_step": "Table 2: tokens per step by tree width",
    "sampling_algorithms": "Table 3: naive and multi-step speculative sampling",
}
"""Figures that are shown, with what they are in the paper."""

WIDTH = 640  # pixels
NUM_COLOURS = 64
CLAIM_COLUMNS = ("id", "statement", "published", "measured", "interval", "verdict", "why")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures and the section; returns 0, or 2 after one line on stderr where something is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/laptop"), help="of a platform, with its report")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args(argv)
    try:
        claims = _claims(arguments.results / "claims.csv")
        shown = [_small(arguments.results / "figures", name, arguments.images) for name in FIGURES]
        text = arguments.readme.read_text(encoding="utf-8")
        head, begin, rest = text.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{arguments.readme}: the lines {BEGIN} and {END} are missing")
    except (OSError, ValueError) as error:
        print(f"report.readme: {error}; the results are made by: make reproduce", file=sys.stderr)
        return 2
    section = "\n\n".join([BEGIN, _gallery(shown, arguments.readme.parent), claims, END])
    arguments.readme.write_text(head + section + tail, encoding="utf-8")
    return 0


def _small(figures: Path, name: str, images: Path) -> tuple[str, Path]:
    """A figure's name, and where its small picture now lies."""
    path = images / f"{name}.png"
    images.mkdir(parents=True, exist_ok=True)
    with Image.open(figures / f"{name}.png") as picture:
        small = picture.convert("RGB").resize(
            (WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS
        )
        small.quantize(NUM_COLOURS).save(path, optimize=True)
    return name, path


def _gallery(shown: Sequence[tuple[str, Path]], root: Path) -> str:
    """Two pictures a row, each under its name."""
    cells = [f"{FIGURES[name]}<br>![{FIGURES[name]}]({path.relative_to(root).as_posix()})" for name, path in shown]
    rows = [cells[start : start + 2] for start in range(0, len(cells), 2)]
    lines = [f"| {' | '.join([*row, ''][:2])} |" for row in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _claims(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| | claim | published | measured | 95 % interval | verdict | why |", "|---|---|---|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(_cell(row[column]) for column in CLAIM_COLUMNS)} |" for row in rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    raise SystemExit(main())
