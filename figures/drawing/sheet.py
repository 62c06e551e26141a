"""The paper of a figure: panels one under the other, a legend above them, a caption below that is never cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from figures.drawing.style import FAINT, FONT, INK, SMALL_TEXT

# Inches.
WIDTH = 7.0
_RIGHT = 0.2
_TOP = 0.12
_LEGEND = 0.22
_TITLE = 0.24
_BELOW_PANEL = 0.48
_CAPTION_SIDE = 0.15
_CAPTION_LINE = 0.145
_BOTTOM = 0.10

_POINTS_PER_INCH = 72.0


@dataclass(frozen=True)
class Sheet:
    """A figure with its panels, top to bottom."""

    figure: Figure
    panels: tuple[Axes, ...]

    def legend(self, handles: Iterable[Artist], num_columns: int) -> None:
        """Put one legend for all panels above them."""
        height = self.figure.get_figheight()
        self.figure.legend(
            handles=list(handles),
            loc="upper center",
            bbox_to_anchor=(0.5, 1 - (_TOP - 0.06) / height),
            ncols=num_columns,
            handlelength=2.4,
            columnspacing=1.6,
        )


def open_sheet(
    panel_heights: Sequence[float], caption: str, *, left: float = 0.7, columns: int = 1, title: float = _TITLE
) -> Sheet:
    """A sheet with a row of panels per height, each with a left margin and room for its title, all in inches.

    Panels go row by row.
    """
    lines = wrap(caption, WIDTH - 2 * _CAPTION_SIDE)
    caption_height = len(lines) * _CAPTION_LINE + _BOTTOM
    height = _TOP + _LEGEND + sum(title + panel + _BELOW_PANEL for panel in panel_heights) + caption_height
    figure = Figure(figsize=(WIDTH, height))
    panels = []
    top = height - _TOP - _LEGEND
    pitch = WIDTH / columns
    for panel in panel_heights:
        bottom = top - title - panel
        for column in range(columns):
            start = column * pitch + left
            box = (start / WIDTH, bottom / height, (pitch - left - _RIGHT) / WIDTH, panel / height)
            panels.append(figure.add_axes(box))
        top = bottom - _BELOW_PANEL
    for number, line in enumerate(lines):
        line_top = caption_height - number * _CAPTION_LINE
        figure.text(_CAPTION_SIDE / WIDTH, line_top / height, line, fontsize=SMALL_TEXT, color=INK, va="top")
    return Sheet(figure, tuple(panels))


def wrap(text: str, width: float) -> list[str]:
    """The text in lines that fit a width in inches, broken at spaces, or inside a word that is wider than a line."""
    space = _width("n n") - 2 * _width("n")
    lines: list[str] = []
    free = 0.0
    # Words are measured, not lines: measuring costs time by the letter.
    for word in _pieces(text.split(), width):
        needed = _width(word) + space
        if lines and needed <= free:
            lines[-1] += f" {word}"
            free -= needed
        else:
            lines.append(word)
            free = width - (needed - space)
    return lines


def _pieces(words: Sequence[str], width: float) -> list[str]:
    pieces = []
    for word in words:
        rest = word
        while len(rest) > 1 and _width(rest) > width:
            length = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or _width(rest[:n]) <= width)
            pieces.append(rest[:length])
            rest = rest[length:]
        pieces.append(rest)
    return pieces


def _width(text: str) -> float:
    """Width in inches at the caption's size."""
    font = FontProperties(family=FONT, size=SMALL_TEXT)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / _POINTS_PER_INCH


def width_of(panel: Axes) -> float:
    """In inches."""
    return float(panel.bbox.width) / panel.figure.dpi


def say_in_panel(panel: Axes, text: str) -> None:
    """Write into the middle of an empty panel."""
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", fontsize=10, color=FAINT)
