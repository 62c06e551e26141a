"""A panel cut into columns: several plots side by side, and a legend beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from figures.drawing.sheet import WIDTH, say_in_panel, wrap
from figures.drawing.style import FAINT, INK, SMALL_TEXT, Mark

LEGEND_WIDTH = 1.55  # inches
_MAX_TICKS = 6
_SMALLER = 0.65  # lines are wrapped by the width of captions, and what stands in an empty plot is larger
_HANDLE = 0.42  # inches: a legend's line and the space after it


@dataclass(frozen=True)
class Entry:
    """An entry of a legend, in lines that are wrapped; without a mark it names what is not drawn."""

    text: str
    mark: Mark | None


def cut(panel: Axes, widths: Sequence[float], gap: float) -> list[Axes]:
    """Plots of these widths, from the panel's left, in its place; widths and the gap between them in inches."""
    figure = panel.get_figure(root=True)
    assert figure is not None
    left, bottom, _, height = panel.get_position().bounds
    panel.remove()
    plots = []
    for width in widths:
        plots.append(figure.add_axes((left, bottom, width / WIDTH, height)))
        left += (width + gap) / WIDTH
    return plots


def legend_beside(plot: Axes, entries: Sequence[Entry]) -> None:
    """Turn a plot of LEGEND_WIDTH into a legend."""
    plot.axis("off")
    if not entries:
        return
    texts = [
        "\n".join(line for part in entry.text.split("\n") for line in wrap(part, LEGEND_WIDTH - _HANDLE))
        for entry in entries
    ]
    plot.legend(
        handles=[_handle(entry.mark) for entry in entries],
        labels=texts,
        labelcolor=[INK if entry.mark else FAINT for entry in entries],
        loc="upper left",
        bbox_to_anchor=(0, 1.03),
        fontsize=SMALL_TEXT,
        handlelength=_HANDLE * 72 / SMALL_TEXT - 0.8,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.55,
    )


def no_data(plot: Axes, text: str) -> None:
    """An empty plot that says why it is."""
    plot.set_xticks([])
    plot.set_yticks([])
    say_in_panel(plot, "\n".join(wrap(text, plot.get_position().width * WIDTH * _SMALLER)))


def powers_of_two(axis: Axis, low: float, high: float) -> None:
    """A logarithmic axis between these ends, with ticks at powers of two."""
    plot = axis.axes
    if axis is plot.xaxis:
        plot.set(xscale="log", xlim=(low, high))
    else:
        plot.set(yscale="log", ylim=(low, high))
    exponents = range(ceil(log2(low)), floor(log2(high)) + 1)
    stride = ceil(len(exponents) / _MAX_TICKS) or 1
    axis.set_major_locator(FixedLocator([2.0**exponent for exponent in exponents[::stride]]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _handle(mark: Mark | None) -> Line2D:
    if mark is None:
        return Line2D([], [], linestyle="none")
    return Line2D([], [], color=mark.colour, marker=mark.marker, linestyle=mark.line, markeredgecolor=INK, markersize=5)
