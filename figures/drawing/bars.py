"""Bars with intervals, and the places of bars that are not there."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from figures.drawing.style import FAINT, INK, PUBLISHED_FILL, SMALL_TEXT, Mark
from figures.reading.cells import Measured

GROUP_WIDTH = 0.86
"""Of the distance between two groups of bars."""
_NARROW = 0.25  # of the same: labels of narrower bars are smaller, so that they do not meet
_GAP_HEIGHT = 0.29  # of the panel: the longest reason fits


def draw_bar(panel: Axes, place: float, width: float, value: Measured, mark: Mark) -> None:
    """A bar with its interval as a whisker."""
    panel.bar(place, value.value, width, color=mark.colour, hatch=mark.hatch, edgecolor=INK, linewidth=0.6)
    panel.errorbar(
        place,
        value.value,
        yerr=[[max(value.value - value.low, 0)], [max(value.high - value.value, 0)]],
        color=INK,
        elinewidth=0.9,
        capsize=2.2,
        capthick=0.9,
    )


def draw_published_bar(panel: Axes, place: float, width: float, value: float, mark: Mark) -> None:
    """The bar of a published number: the hatch of its mark, in grey."""
    panel.bar(place, value, width, color=PUBLISHED_FILL, hatch=mark.hatch, edgecolor=FAINT, linewidth=0.6)


def draw_gap(panel: Axes, place: float, width: float, reason: str) -> None:
    """Mark the place of a bar that is not there with the reason; the y axis has its limits already."""
    height = _GAP_HEIGHT * panel.get_ylim()[1]
    panel.bar(place, height, width * GROUP_WIDTH, color="none", edgecolor=FAINT, linewidth=0.7, linestyle=":")
    panel.text(place, height / 2, reason, ha="center", va="center", rotation=90, fontsize=SMALL_TEXT, color=FAINT)


def label_above(panel: Axes, place: float, top: float, text: str, width: float, colour: str = INK) -> None:
    """A label right above the top of something ``width`` wide."""
    panel.annotate(
        text,
        (place, top),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=SMALL_TEXT if width > _NARROW else SMALL_TEXT - 1,
        color=colour,
    )


def bar_handles(marks: Iterable[Mark]) -> list[Patch]:
    """What a legend shows of marks that are drawn as bars."""
    return [Patch(facecolor=m.colour, hatch=m.hatch, edgecolor=INK, label=m.label) for m in marks]
