"""Figure ``break_even``: from which acceptance on, and up to which batch size, speculation pays."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import coverage_of, outcome
from figures.drawing.columns import cut, no_data, powers_of_two
from figures.drawing.sheet import open_sheet
from figures.drawing.style import FAINT, INK, SMALL_TEXT
from figures.reading.researcher_tables import CostCurve, PredictionRow, Weights
from figures.reading.tables import OK
from figures.selecting.costs import CHAIN, PUBLISHED_TREE, Costs, Floats, Planned, TreeShape, planned_costs
from figures.selecting.ways import PROMPT_SET

SIZE = "small"
SHAPES = {"chain of 8": CHAIN, "published tree": PUBLISHED_TREE}
MAX_PANELS = 4
LARGEST_BATCH = 16

_PANEL_HEIGHT = 2.0  # inches
_PLOT_WIDTH = 2.5
_GAP = 0.95
_EDGE = 1.15  # beside the smallest and the largest batch size, as a factor
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 9.0)
# Ever darker, so that the map reads the same in grey: sand where speculation loses, blue where it pays.
_COLOURS = (
    *("#fffdf6", "#fdf4e3", "#faead0", "#f4debb"),
    *("#c9dcee", "#b0cde5", "#97bddb", "#7fadd1", "#689dc6", "#538dba", "#417dad", "#326d9f", "#265e90"),
)
_ASIDE = 1.12  # to the right of a line, as a factor
_CLOSEST = 0.08  # of the axis of r: labels nearer than that would touch
_RATE = "rate of acceptance r"
_OTHER = "other tree, prompt set, decoding, model or batch size"
_NO_MAP = "no map"
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}

Points = dict[tuple[Weights, str], list[PredictionRow]]
"""Weights and name of a shape -> the scenarios that are points of their map."""

_WHAT = (
    "Predicted speed-up over incremental decoding: E t(B) / (t(B N) + sum of c(B n) over levels); B is the batch size, "
    "t and c the measured times of a target pass and of a draft level by rows, N the nodes of the tree with its root, "
    "n those of a level, E the tokens per step: 1 + r + ... + r^8 for the chain, and a step with k proposals accepts "
    "one at rate 1 - (1 - r)^k. Bold: break-even. Markers: the r of the measured tokens per step; at them, the "
    "measured speed-up."
)
_NO_SPEEDUP = "n/a"
_ALONE = f"{_NO_SPEEDUP}: its experiment has no incremental decoding to compare with."
_HATCHED = "Hatched: more rows than were measured, t and c continued as lines."


def draw_break_even(curves: Sequence[CostCurve], rows: Sequence[PredictionRow]) -> Figure:
    """Draw a panel per way of keeping the small target's weights that has costs: a map per shape of the draft."""
    planned = planned_costs(curves, [row.scenario for row in rows], sizes=[SIZE])
    complete = {weights: costs for weights, costs in planned.costs.items() if costs.draft_level}
    drawn = dict([*complete.items()][:MAX_PANELS])
    points = {
        (weights, name): _own_rows(rows, weights, shape)
        for weights in planned.weights
        for name, shape in SHAPES.items()
    }
    outcomes = _outcomes(rows, points, drawn)
    shown = [row for (weights, _), of_map in points.items() if weights in drawn for row in of_map]
    is_alone = any(row.measured_tokens_per_step is not None and row.measured_speedup is None for row in shown)
    caption = _caption(planned, drawn, outcomes, _ALONE if is_alone else "")
    sheet = open_sheet([_PANEL_HEIGHT] * max(len(drawn), 1), caption)
    if not drawn:
        sheet.panels[0].set(xlabel="batch size", ylabel=_RATE)
        no_data(sheet.panels[0], planned.nothing_yet)
    for panel, (weights, costs) in zip(sheet.panels, drawn.items(), strict=False):
        plots = cut(panel, [_PLOT_WIDTH] * len(SHAPES), _GAP)
        plots[0].set_title(weights.label)
        for plot, (name, shape) in zip(plots, SHAPES.items(), strict=True):
            _draw_map(plot, shape, costs)
            _draw_points(plot, shape, points[weights, name])
            plot.set(xlabel=f"batch size, {name}", ylabel=_RATE)
    return sheet.figure


def _outcomes(rows: Sequence[PredictionRow], points: Points, drawn: Collection[Weights]) -> list[str]:
    """A word per planned scenario: OK where it is a point, else why it is none."""
    timed = [row for row in rows if row.scenario.draft and not row.scenario.is_functional]
    outcomes = {row.scenario.name: _OTHER for row in timed}
    for (weights, _), of_map in points.items():
        for row in of_map:
            told = _outcome(row)
            outcomes[row.scenario.name] = _NO_MAP if told == OK and weights not in drawn else told
    return [*outcomes.values()]


def _caption(planned: Planned, drawn: dict[Weights, Costs], outcomes: Sequence[str], alone: str) -> str:
    last_batches = [_last_batch(costs, shape) for costs in drawn.values() for shape in SHAPES.values()]
    without = [weights.label for weights in planned.weights if weights not in drawn]
    told = f"No map, for want of costs or room: {'; '.join(without)}." if without else ""
    hatched = _HATCHED if min(last_batches, default=LARGEST_BATCH) < LARGEST_BATCH else ""
    parts = [_WHAT, alone, hatched, planned.targets, planned.machines, told, coverage_of(outcomes), planned.left_out]
    return " ".join(filter(None, parts))


def _outcome(row: PredictionRow) -> str:
    return outcome(row.scenario, row.measured_tokens_per_step is not None)


def _own_rows(rows: Sequence[PredictionRow], weights: Weights, shape: TreeShape) -> list[PredictionRow]:
    """One row per batch size of the shape's greedy scenarios: that of the artifact's prompts and fewest settings."""
    own: dict[int, PredictionRow] = {}
    alike = [
        row
        for row in rows
        if Weights.of(row.scenario) == weights
        and row.scenario.expansion == shape.name
        and row.scenario.decoding != "stochastic"
        and row.scenario.tree_layout != "sequences"
        and row.scenario.batch_size <= LARGEST_BATCH
        and not row.scenario.is_functional
    ]
    for row in sorted(alike, key=lambda row: (row.scenario.prompt_set != PROMPT_SET, len(row.scenario.name))):
        own.setdefault(row.scenario.batch_size, row)
    return [own[batch_size] for batch_size in sorted(own)]


def _last_batch(costs: Costs, shape: TreeShape) -> float:
    """The largest batch size at which no pass has more rows than were measured."""
    assert costs.draft_level is not None
    return min(costs.target.rows[-1] / shape.num_nodes, costs.draft_level.rows[-1] / max(shape.level_nodes[:-1]))


def _draw_map(plot: Axes, shape: TreeShape, costs: Costs) -> None:
    batch_sizes = np.geomspace(1 / _EDGE, LARGEST_BATCH * _EDGE, 81)
    rates = np.linspace(0, 1, 101)
    grid_batch, grid_rate = np.meshgrid(np.maximum(batch_sizes, 1), rates)
    speedup = shape.speedup(costs, grid_batch, grid_rate)
    plot.contourf(batch_sizes, rates, speedup, levels=_LEVELS, colors=_COLOURS, zorder=0.5)
    lines = [level for level in _LEVELS[1:] if speedup.min() < level < speedup.max()]
    if lines:
        widths = [2.0 if level == 1 else 0.5 for level in lines]
        plot.contour(batch_sizes, rates, speedup, levels=lines, colors=INK, linewidths=widths, zorder=1)
    plot.set_axisbelow(False)
    plot.grid(visible=False)
    powers_of_two(plot.xaxis, batch_sizes[0], batch_sizes[-1])
    plot.set_ylim(0, 1)
    last = _last_batch(costs, shape)
    if last < LARGEST_BATCH:
        plot.axvspan(
            max(last, batch_sizes[0]), batch_sizes[-1], facecolor="none", edgecolor=FAINT, hatch="//", linewidth=0
        )
    _label_lines(plot, rates, speedup[:, -1])
    top = speedup[-1]
    if top[-1] < 1 < top[0]:
        place = float(np.interp(-1, -top, batch_sizes))
        plot.text(place * _ASIDE, 0.97, "1×", va="top", fontsize=SMALL_TEXT, weight="bold", bbox=_WHITE)
    if speedup.max() < 1 or speedup.min() > 1:
        side = "below" if speedup.max() < 1 else "above"
        plot.text(0.5, 0.92, f"{side} 1 everywhere", transform=plot.transAxes, ha="center", va="center", bbox=_WHITE)


def _label_lines(plot: Axes, rates: Floats, speedup: Floats) -> None:
    """Name the lines where they end at the right edge, the one at 1 in any case, others where there is room."""
    places: list[float] = []
    for level in (1.0, *_LEVELS[1:]):
        place = float(np.interp(level, speedup, rates))
        is_there = speedup[0] < level <= speedup[-1]
        if is_there and all(abs(place - other) > _CLOSEST for other in places):
            places.append(place)
            weight = "bold" if level == 1 else "normal"
            text = f" {level:g}×"
            plot.text(1.0, place, text, transform=plot.transAxes, va="center", fontsize=SMALL_TEXT, weight=weight)


def _draw_points(plot: Axes, shape: TreeShape, rows: Sequence[PredictionRow]) -> None:
    for row in rows:
        batch_size, tokens = row.scenario.batch_size, row.measured_tokens_per_step
        if tokens is None:
            _write(plot, batch_size, 0.04, _outcome(row), rotation=90, va="bottom")
            continue
        rate = shape.rate_of(tokens)
        plot.plot(batch_size, rate, marker="o", color="white", markeredgecolor=INK, markersize=5.5, linestyle="none")
        is_high = rate > 0.85
        told = f"{row.measured_speedup.value:.2g}×" if row.measured_speedup else _NO_SPEEDUP
        _write(plot, batch_size, rate + (-0.06 if is_high else 0.06), told, va="top" if is_high else "bottom")


def _write(plot: Axes, batch_size: int, rate: float, text: str, *, va: str, rotation: float = 0) -> None:
    plot.text(
        batch_size, rate, text, ha="center", va=va, rotation=rotation, fontsize=SMALL_TEXT, color=INK, bbox=_WHITE
    )
