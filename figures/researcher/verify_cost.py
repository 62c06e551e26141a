"""Figure ``verify_cost``: what a pass over n rows costs beside one over a single row, t(n)/t(1)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.columns import LEGEND_WIDTH, Entry, cut, legend_beside, no_data, powers_of_two
from figures.drawing.sheet import open_sheet
from figures.drawing.style import FAINT, INK, Mark
from figures.reading.researcher_tables import CostCurve
from figures.reading.tables import Scenario
from figures.selecting.costs import planned_costs
from figures.selecting.ways import MARKS

_PANEL_HEIGHT = 2.4  # inches
_PLOT_WIDTH = 2.0
_GAP = 0.35
_ROOM = 1.3  # around the points, as a factor

_WHAT = (
    "Time of a pass over n rows, all requests together, over that of one row, which the legend gives for the target. "
    "Grey: rows that cost nothing beside the first, t(n) = t(1), and rows that all cost the same, t(n) = n t(1)."
)
_TITLES = {"target": "target", "draft_level": "one level of the draft"}


def draw_verify_cost(curves: Sequence[CostCurve], scenarios: Sequence[Scenario]) -> Figure:
    """Draw the target's and the draft's curves; ``scenarios`` are the planned ones, that say what has none."""
    planned = planned_costs(curves, scenarios)
    drawn = dict(zip(planned.costs, MARKS, strict=False))
    coverage = f"{len(drawn)} of {len(planned.weights)} planned kinds of weights are drawn"
    further = len(curves) - sum(1 + (planned.costs[weights].draft_level is not None) for weights in drawn)
    beside = f"; {further} further curves, of other placements, are in verify_costs.csv." if further else "."
    caption = " ".join(filter(None, [_WHAT, planned.targets, planned.machines, coverage + beside, planned.left_out]))
    sheet = open_sheet([_PANEL_HEIGHT], caption)
    target, draft_level, legend = cut(sheet.panels[0], [_PLOT_WIDTH, _PLOT_WIDTH, LEGEND_WIDTH], _GAP)
    marked = [(planned.costs[weights], mark) for weights, mark in drawn.items()]
    _draw_part(target, "target", [(costs.target, mark) for costs, mark in marked], planned.nothing_yet)
    levels = [(costs.draft_level, mark) for costs, mark in marked if costs.draft_level]
    _draw_part(draft_level, "draft_level", levels, planned.nothing_yet)
    target.set_ylabel("t(n) / t(1)")
    entries = [
        Entry(f"{w.label}\nt(1) = {planned.costs[w].target.time_ms[0]:.3g} ms", mark) for w, mark in drawn.items()
    ]
    without = [Entry(f"{w.label}: no costs", None) for w in planned.weights if w not in planned.costs]
    legend_beside(legend, [*entries, *without])
    return sheet.figure


def _draw_part(plot: Axes, part: str, curves: Sequence[tuple[CostCurve, Mark]], empty: str) -> None:
    plot.set_title(_TITLES[part])
    plot.set_xlabel("n (rows of the pass)")
    if not curves:
        no_data(plot, empty)
        return
    last = max(max(curve.rows) for curve, _ in curves)
    lowest = min(1.0, *(min(curve.ratio) for curve, _ in curves))
    highest = max(max(curve.ratio) for curve, _ in curves)
    powers_of_two(plot.xaxis, 1 / _ROOM, last * _ROOM)
    powers_of_two(plot.yaxis, lowest / _ROOM, highest * _ROOM)
    plot.plot([1, last], [1, 1], color=FAINT, linewidth=0.9, linestyle="--", zorder=1.5)
    plot.plot([1, last], [1, last], color=FAINT, linewidth=0.9, linestyle="--", zorder=1.5)
    for curve, mark in curves:
        plot.plot(
            curve.rows,
            curve.ratio,
            color=mark.colour,
            marker=mark.marker,
            linestyle=mark.line,
            markeredgecolor=INK,
            markeredgewidth=0.5,
            markersize=4,
        )
