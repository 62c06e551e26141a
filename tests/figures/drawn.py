"""Draws a figure from rows and looks at what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from figures.drawing.style import RC
from figures.gallery import FIGURES
from figures.reading.sources import Sources
from tests.figures.paper_tables import Tables, write_paper_tables
from tests.figures.table_files import Row, as_read_by, write_tables

PAPER_DIR = Path(__file__).parents[2] / "paper"


@dataclass(frozen=True)
class PlacedText:
    """A text and its box in pixels."""

    text: str
    box: Bbox


@dataclass(frozen=True)
class Drawn:
    """A figure after layout."""

    figure: Figure
    texts: tuple[PlacedText, ...]

    @property
    def caption(self) -> str:
        """The caption on one line."""
        return " ".join(text.get_text() for text in self.figure.texts)

    def words(self) -> list[str]:
        """All texts but the caption."""
        caption_lines = {text.get_text() for text in self.figure.texts}
        return [placed.text for placed in self.texts if placed.text not in caption_lines]


def draw(name: str, tmp_path: Path, rows: list[Row], paper_dir: Path = PAPER_DIR) -> Drawn:
    """Draw a figure of the gallery from tables with these rows, taken as those of the experiment that it shows."""
    is_own = any(row["experiment"] == "offloading" for row in rows)
    return _draw(name, write_tables(tmp_path / "csv", rows if is_own else as_read_by(name, rows)), paper_dir)


def draw_paper(name: str, tmp_path: Path, tables: Tables, paper_dir: Path = PAPER_DIR) -> Drawn:
    """Draw a figure of the gallery from the tables of the experiments with free modes."""
    return _draw(name, write_paper_tables(tmp_path / "csv", tables), paper_dir)


def _draw(name: str, csv_dir: Path, paper_dir: Path) -> Drawn:
    with mpl.rc_context(RC):
        figure = FIGURES[name](Sources(csv_dir, paper_dir))
        figure.draw_without_rendering()
        found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
        shown = [text for text in found if text.get_visible() and text.get_text().strip()]
        texts = tuple(PlacedText(text.get_text(), text.get_window_extent()) for text in shown)
    return Drawn(figure, texts)


def cut_texts(drawn: Drawn) -> list[str]:
    """Texts that leave the paper."""
    paper = drawn.figure.bbox
    return [
        placed.text
        for placed in drawn.texts
        if placed.box.x0 < paper.x0 - 0.5
        or placed.box.y0 < paper.y0 - 0.5
        or placed.box.x1 > paper.x1 + 0.5
        or placed.box.y1 > paper.y1 + 0.5
    ]


def overlapping_texts(drawn: Drawn) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a sliver."""
    boxes = np.array([placed.box.extents for placed in drawn.texts])
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    shared = np.minimum(high, boxes[None, :, 2:]) - np.maximum(low, boxes[None, :, :2])
    covered = np.argwhere(np.triu((shared > 1).all(axis=2), k=1))
    return [(drawn.texts[one].text, drawn.texts[other].text) for one, other in covered]
