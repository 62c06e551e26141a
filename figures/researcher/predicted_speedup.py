"""Figure ``predicted_speedup``: measured speed-ups against those predicted from acceptance and costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures.drawing.captions import coverage_of, left_out, nothing_yet, provenance
from figures.drawing.columns import no_data
from figures.drawing.panels import split_functional
from figures.drawing.sheet import open_sheet, wrap
from figures.drawing.style import FAINT, INK, MODE_MARKS, SMALL_TEXT, Mark
from figures.reading.cells import Measured
from figures.reading.researcher_tables import PredictionRow, Weights
from figures.reading.tables import OK

_SIDE = 1.58  # inches, of a square panel
_LEFT = 0.6
_TITLE = 0.34  # of two lines
_PER_ROW = 3
_TITLE_BEYOND = 0.1  # inches: a title may be wider than its panel
_HEADROOM = 1.1

_MARKS = {mode: MODE_MARKS[mode] for mode in ("sequence", "tree", "tree_auto")}
_OTHER = Mark("other trees", "#cc79a7", "", "^")

_WHAT = (
    "Speed-up over incremental decoding at the same batch size: predicted from the measured costs of passes and the "
    "acceptance by rank of another scenario on the same prompts, and measured, with its 95% bootstrap interval. On the "
    "diagonal both are equal; grey: 1, no gain."
)


def draw_predicted_speedup(rows: Sequence[PredictionRow]) -> Figure:
    """Draw a square panel per model and way of keeping its weights, a point per scenario."""
    timed, functional = split_functional([row for row in rows if row.scenario.draft is not None])
    groups = _by_weights(timed)
    scenarios = [row.scenario for row in timed]
    outcomes = coverage_of([_outcome(row) for row in timed])
    parts = [_WHAT, _error(timed), provenance(scenarios), outcomes, left_out(functional)]
    num_lines = -(-len(groups) // _PER_ROW)
    sheet = open_sheet([_SIDE] * num_lines, " ".join(filter(None, parts)), left=_LEFT, columns=_PER_ROW, title=_TITLE)
    for plot, (title, of_group) in zip(sheet.panels, groups, strict=False):
        _draw_panel(plot, title, of_group)
    for plot in sheet.panels[len(groups) :]:
        plot.remove()
    drawn = {mode for mode, _, _ in _points(timed)}
    marks = [*(mark for mode, mark in _MARKS.items() if mode in drawn), *([_OTHER] if drawn - {*_MARKS} else [])]
    if marks:
        sheet.legend(
            [Line2D([], [], color=m.colour, marker=m.marker, linestyle="none", label=m.label) for m in marks],
            len(marks),
        )
    return sheet.figure


def _by_weights(rows: Sequence[PredictionRow]) -> list[tuple[str, list[PredictionRow]]]:
    """A panel's title and rows; one without rows if nothing is planned."""
    groups: dict[Weights, list[PredictionRow]] = {}
    for row in rows:
        groups.setdefault(Weights.of(row.scenario), []).append(row)
    ordered = sorted(groups, key=lambda weights: weights.order)
    return [(weights.label, groups[weights]) for weights in ordered] or [("", [])]


def _outcome(row: PredictionRow) -> str:
    """OK where there is a point to draw, else why there is none."""
    if row.scenario.status != OK:
        return row.scenario.status
    if row.measured_speedup is None:
        return "no baseline"
    return OK if row.predicted_speedup is not None else "no prediction"


def _points(rows: Sequence[PredictionRow]) -> list[tuple[str, float, Measured]]:
    """Mode, predicted and measured speed-up of the rows that have both."""
    return [
        (row.scenario.mode, row.predicted_speedup, row.measured_speedup)
        for row in rows
        if _outcome(row) == OK and row.predicted_speedup is not None and row.measured_speedup
    ]


def _error(rows: Sequence[PredictionRow]) -> str:
    """The sentence of how far predictions are off."""
    ratios = [predicted / measured.value for _, predicted, measured in _points(rows)]
    if not ratios:
        return ""
    off = median(abs(ratio - 1) for ratio in ratios)
    return f"Predicted over measured: median {median(ratios):.2f}; half of them are within {off:.0%} of 1."


def _draw_panel(plot: Axes, title: str, rows: Sequence[PredictionRow]) -> None:
    first, *others = wrap(title, _SIDE + _TITLE_BEYOND) or [""]
    second = [f"{others[0]} …"] if len(others) > 1 else others
    plot.set_title("\n".join([first, *second]), fontsize=SMALL_TEXT)
    plot.set_xlabel("predicted speed-up")
    plot.set_ylabel("measured speed-up")
    points = _points(rows)
    if not points:
        any_record = any(row.scenario.status == OK for row in rows)
        no_data(plot, "no speed-up yet" if any_record else nothing_yet([row.scenario for row in rows]))
        return
    end = max([1.0, *(max(predicted, measured.high) for _, predicted, measured in points)]) * _HEADROOM
    plot.set(xlim=(0, end), ylim=(0, end))
    ticks = [tick for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, end) if tick <= end]
    plot.set(xticks=ticks, yticks=ticks)
    plot.axhline(1, color=FAINT, linewidth=0.7)
    plot.axvline(1, color=FAINT, linewidth=0.7)
    plot.plot([0, end], [0, end], color=INK, linewidth=0.9)
    for mode, predicted, measured in points:
        _draw_point(plot, _MARKS.get(mode, _OTHER), predicted, measured)
    if len(points) < len(rows):
        told = f"{len(rows) - len(points)} of {len(rows)} not there"
        plot.text(0.98, 0.03, told, transform=plot.transAxes, ha="right", fontsize=SMALL_TEXT, color=FAINT)


def _draw_point(plot: Axes, mark: Mark, predicted: float, measured: Measured) -> None:
    plot.vlines(predicted, measured.low, measured.high, color=mark.colour, linewidth=1.0)
    plot.plot(
        predicted,
        measured.value,
        color=mark.colour,
        marker=mark.marker,
        linestyle="none",
        markersize=5,
        markeredgecolor=INK,
        markeredgewidth=0.5,
    )
