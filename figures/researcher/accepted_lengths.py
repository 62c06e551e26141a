"""Figure ``accepted_lengths``: how many drafted tokens a step accepts, as histogram and cumulative."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.drawing.captions import nothing_yet
from figures.drawing.columns import LEGEND_WIDTH, cut, legend_beside, no_data
from figures.drawing.sheet import open_sheet
from figures.drawing.style import INK
from figures.reading.researcher_tables import AcceptedLengthRow
from figures.selecting.ways import Way, WaysPanel, choose_ways

_PANEL_HEIGHT = 2.0  # inches
_HISTOGRAM_WIDTH = 2.3
_CUMULATIVE_WIDTH = 1.35
_GAP = 0.5
_GROUP_WIDTH = 0.84  # of the distance between two lengths
_MAX_WAYS = 4  # more bars side by side cannot be told apart
_HEADROOM = 1.06

_WHAT = (
    "Drafted tokens that a step accepts, left as share of the steps, right as share of steps that accept at most so "
    "many. A step emits one token more: its own."
)


def draw_accepted_lengths(rows: Sequence[AcceptedLengthRow]) -> Figure:
    """Draw one panel per target and decoding, a colour per way of speculating."""
    chosen = choose_ways(rows, lambda of_scenario: bool(_known(of_scenario)), _MAX_WAYS)
    sheet = open_sheet([_PANEL_HEIGHT] * len(chosen.panels), chosen.caption(_WHAT, "accepted_lengths"))
    for panel, ways in zip(sheet.panels, chosen.panels, strict=True):
        _draw_panel(panel, ways)
    return sheet.figure


def _known(rows: Sequence[AcceptedLengthRow]) -> list[tuple[int, float, float]]:
    """Accepted tokens, share and cumulative share, of the rows that have them."""
    return sorted(
        (row.num_accepted, row.share, row.cumulative_share)
        for row in rows
        if row.num_accepted is not None and row.share is not None and row.cumulative_share is not None
    )


def _draw_panel(panel: Axes, ways: WaysPanel[AcceptedLengthRow]) -> None:
    histogram, cumulative, legend = cut(panel, [_HISTOGRAM_WIDTH, _CUMULATIVE_WIDTH, LEGEND_WIDTH], _GAP)
    histogram.set_title(ways.title)
    histogram.set_ylabel("share of steps")
    cumulative.set_ylabel("cumulative share", labelpad=1)
    known = [_known(way.rows) for way in ways.ways]
    legend_beside(legend, [way.entry(bool(of_way)) for way, of_way in zip(ways.ways, known, strict=True)])
    if not any(known):
        no_data(histogram, nothing_yet([way.scenario for way in ways.ways]))
        no_data(cumulative, "")
        return
    drawn = [(way, of_way) for way, of_way in zip(ways.ways, known, strict=True) if of_way]
    longest = max(length for _, of_way in drawn for length, _, _ in of_way)
    for plot in (histogram, cumulative):
        plot.set_xlabel("accepted tokens per step")
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    histogram.set_xlim(-0.6, longest + 0.6)
    histogram.set_ylim(0, max(share for _, of_way in drawn for _, share, _ in of_way) * _HEADROOM)
    cumulative.set_xlim(-0.2, longest + 0.2)
    cumulative.set_ylim(0, _HEADROOM)
    width = _GROUP_WIDTH / len(drawn)
    for number, (way, of_way) in enumerate(drawn):
        _draw_bars(histogram, way, of_way, (number - (len(drawn) - 1) / 2) * width, width)
        _draw_steps(cumulative, way, of_way, longest)


def _draw_bars(
    plot: Axes, way: Way[AcceptedLengthRow], known: Sequence[tuple[int, float, float]], aside: float, width: float
) -> None:
    lengths, shares, _ = zip(*known, strict=True)
    places = [length + aside for length in lengths]
    plot.bar(places, shares, width, color=way.mark.colour, hatch=way.mark.hatch, edgecolor=INK, linewidth=0.5)


def _draw_steps(
    plot: Axes, way: Way[AcceptedLengthRow], known: Sequence[tuple[int, float, float]], longest: int
) -> None:
    """Constant between whole numbers, and at its last value up to the longest of any way."""
    lengths, _, cumulative = zip(*known, strict=True)
    plot.plot(
        [*lengths, longest],
        [*cumulative, cumulative[-1]],
        drawstyle="steps-post",
        color=way.mark.colour,
        linestyle=way.mark.line,
        marker=way.mark.marker,
        markevery=range(len(lengths)),
        markersize=4,
        markeredgecolor=INK,
        markeredgewidth=0.5,
    )
