"""Figure ``acceptance_by_depth``: how often a proposed token is accepted, by how deep it is in the draft."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.drawing.captions import nothing_yet
from figures.drawing.columns import LEGEND_WIDTH, cut, legend_beside, no_data
from figures.drawing.series import draw_line
from figures.drawing.sheet import open_sheet
from figures.reading.cells import Measured
from figures.reading.researcher_tables import AcceptanceRow
from figures.selecting.ways import Way, WaysPanel, choose_ways

_PANEL_HEIGHT = 2.1  # inches
_PLOT_WIDTH = 4.5
_GAP = 0.1
_APART = 0.05  # of a step of depth: so that intervals of several ways can be told apart
_HEADROOM = 1.04

_WHAT = (
    "Share of the steps that reached the depth before, with proposals for this one, that accepted one of them. Upright "
    "lines: 95% bootstrap interval over prompts; those of several proposals are added up, which never narrows it."
)


def draw_acceptance_by_depth(rows: Sequence[AcceptanceRow]) -> Figure:
    """Draw one panel per target and decoding, one line per way of speculating."""
    chosen = choose_ways(rows, lambda of_scenario: bool(rates_by_depth(of_scenario)))
    sheet = open_sheet([_PANEL_HEIGHT] * len(chosen.panels), chosen.caption(_WHAT, "acceptance"))
    for panel, ways in zip(sheet.panels, chosen.panels, strict=True):
        _draw_panel(panel, ways)
    return sheet.figure


def rates_by_depth(rows: Sequence[AcceptanceRow]) -> dict[int, Measured]:
    """Of one scenario: depth -> share of steps that accepted any rank; a depth that was never reached is left out.

    Ranks of a depth exclude each other, so that their shares add up; the spread of a sum is never more than the sum of
    the spreads.
    """
    rates = {}
    for depth in sorted({row.depth for row in rows if row.depth is not None}):
        of_depth = [row for row in rows if row.depth == depth and row.num_offered and row.rate]
        num_reached = max((row.num_offered or 0 for row in of_depth), default=0)
        if num_reached:
            parts = [(row.rate, (row.num_offered or 0) / num_reached) for row in of_depth if row.rate]
            value, low, high = (
                sum(getattr(rate, end) * weight for rate, weight in parts) for end in ("value", "low", "high")
            )
            rates[depth] = Measured(value, max(low, 0.0), min(high, 1.0))
    return rates


def _draw_panel(panel: Axes, ways: WaysPanel[AcceptanceRow]) -> None:
    plot, legend = cut(panel, [_PLOT_WIDTH, LEGEND_WIDTH], _GAP)
    plot.set_title(ways.title)
    plot.set_xlabel("depth in the draft (tokens)")
    plot.set_ylabel("rate of acceptance")
    rates = [rates_by_depth(way.rows) for way in ways.ways]
    legend_beside(legend, [way.entry(bool(of_way)) for way, of_way in zip(ways.ways, rates, strict=True)])
    if not any(rates):
        no_data(plot, nothing_yet([way.scenario for way in ways.ways]))
        return
    deepest = max(depth for of_way in rates for depth in of_way)
    plot.set_xlim(0.5, deepest + 0.5)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plot.set_ylim(0, _HEADROOM)
    for number, (way, of_way) in enumerate(zip(ways.ways, rates, strict=True)):
        _draw_way(plot, way, of_way, deepest, (number - (len(rates) - 1) / 2) * _APART)


def _draw_way(plot: Axes, way: Way[AcceptanceRow], rates: dict[int, Measured], deepest: int, aside: float) -> None:
    """A line with a gap where a depth was never reached."""
    if not rates:
        return
    plot.vlines(
        [depth + aside for depth in rates],
        [rate.low for rate in rates.values()],
        [rate.high for rate in rates.values()],
        color=way.mark.colour,
        linewidth=1.0,
    )
    depths = range(1, deepest + 1)
    values = [rates[depth].value if depth in rates else float("nan") for depth in depths]
    draw_line(plot, [depth + aside for depth in depths], values, way.mark)
