"""Draws a researcher's figure from made-up scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.text import Text

from figures.drawing.style import RC
from figures.gallery import FIGURES
from figures.reading.sources import Sources
from tests.figures.drawn import PAPER_DIR, Drawn, PlacedText
from tests.figures.researcher_files import Row, write_tables

WAYS = ("acceptance_by_depth", "accepted_lengths", "tree_size_acceptance")
RESEARCHERS = (*WAYS, "verify_cost", "predicted_speedup", "break_even")


def draw_from(name: str, csv_dir: Path) -> Drawn:
    """Draw a figure of the gallery from a folder of tables."""
    with mpl.rc_context(RC):
        figure = FIGURES[name](Sources(csv_dir, PAPER_DIR))
        figure.draw_without_rendering()
        found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
        shown = [text for text in found if text.get_visible() and text.get_text().strip()]
        texts = tuple(PlacedText(text.get_text(), text.get_window_extent()) for text in shown)
    return Drawn(figure, texts)


def draw(name: str, tmp_path: Path, scenarios: Sequence[Row], costs: Sequence[Row] | None = None) -> Drawn:
    """Draw a figure of the gallery from the tables of these scenarios."""
    return draw_from(name, write_tables(tmp_path / "csv", scenarios, costs))


def lines(plot: Axes, marker: str) -> list[Line2D]:
    """The lines of a plot that have this marker; "" for those without any."""
    return [line for line in plot.lines if line.get_marker() in (marker, marker or "None")]


def uprights(plot: Axes) -> list[tuple[float, float, float]]:
    """Place, low and high end of every interval in a plot."""
    return [
        (float(segment[0][0]), float(segment[0][1]), float(segment[1][1]))
        for collection in plot.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]
