"""Figure ``tree_size_acceptance``: tokens per step against the size of the draft tree, beside what is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import nothing_yet, outcome
from figures.drawing.columns import LEGEND_WIDTH, Entry, cut, legend_beside, no_data, powers_of_two
from figures.drawing.sheet import open_sheet
from figures.drawing.style import INK, Mark
from figures.reading.researcher_tables import PredictionRow
from figures.reading.tables import Scenario
from figures.selecting.ways import MARKS, Way, WaysPanel, choose_ways, shape, verifier_of

_PANEL_HEIGHT = 2.1  # inches
_PLOT_WIDTH = 4.5
_GAP = 0.1
_HEADROOM = 1.1
_MARGIN = 1.3  # beside the smallest and the largest tree, as a factor
_MANY = 100  # points: more than a panel is ever planned to hold
_CHAIN = "chain"

_WHAT = (
    "Markers: measured tokens per step, the step's own included; upright lines: 95% bootstrap interval over "
    "prompts. Dotted: predicted from the acceptance by rank of another scenario on the same prompts; a chain begins "
    "every curve."
)


def draw_tree_size_acceptance(rows: Sequence[PredictionRow]) -> Figure:
    """Draw one panel per target and decoding."""
    chosen = choose_ways(rows, lambda of_scenario: _is_measured(of_scenario[0]), _MANY)
    sheet = open_sheet([_PANEL_HEIGHT] * len(chosen.panels), chosen.caption(_WHAT, "predictions"))
    for panel, ways in zip(sheet.panels, chosen.panels, strict=True):
        _draw_panel(panel, ways)
    return sheet.figure


def _is_measured(row: PredictionRow) -> bool:
    return bool(row.num_nodes) and row.measured_tokens_per_step is not None


def _draw_panel(panel: Axes, ways: WaysPanel[PredictionRow]) -> None:
    plot, legend = cut(panel, [_PLOT_WIDTH, LEGEND_WIDTH], _GAP)
    plot.set_title(ways.title)
    plot.set_xlabel("nodes of the draft tree")
    plot.set_ylabel("tokens per step")
    kinds = _by_kind(ways.ways)
    first_to_draw = sorted(kinds, key=lambda kind: not any(_is_measured(row) for row in kinds[kind]))
    marks = {kind: replace(mark, line=":") for kind, mark in zip(first_to_draw, MARKS, strict=False)}
    legend_beside(legend, [_entry(kind, rows, marks[kind]) for kind, rows in kinds.items() if kind in marks])
    rows = [way.rows[0] for way in ways.ways]
    if not any(_is_measured(row) for row in rows):
        no_data(plot, nothing_yet([row.scenario for row in rows]))
        return
    _scale(plot, rows)
    for kind, mark in marks.items():
        verifier = verifier_of(kinds[kind][0].scenario)
        chain = [row for row in rows if row.scenario.tree_width == 1 and verifier_of(row.scenario) == verifier]
        if kinds[kind][0].scenario.expansion is not None and any(_is_measured(row) for row in kinds[kind]):
            _draw_predicted(plot, [*chain, *kinds[kind]], mark)
        _draw_measured(plot, kinds[kind], mark)


def _by_kind(ways: Sequence[Way[PredictionRow]]) -> dict[str, list[PredictionRow]]:
    """Trees of several sizes that branch at the same step, and that the same verifier judges."""
    scenarios = [way.scenario for way in ways]
    kinds: dict[str, list[PredictionRow]] = {}
    for way in ways:
        kinds.setdefault(_kind(way.scenario, scenarios), []).append(way.rows[0])
    return kinds


def _kind(scenario: Scenario, beside: Sequence[Scenario]) -> str:
    where = shape(scenario)
    if scenario.expansion is not None and scenario.branching_step is None:
        where = _CHAIN
    elif where.startswith("width"):
        where = f"wide at step {scenario.branching_step}"
    any_other = len({verifier_of(other) for other in beside}) > 1
    return ", ".join(filter(None, [where, verifier_of(scenario) if any_other else None]))


def _entry(kind: str, rows: Sequence[PredictionRow], mark: Mark) -> Entry:
    missing = [outcome(row.scenario, is_drawn=False) for row in rows if not _is_measured(row)]
    if not missing:
        return Entry(kind, mark)
    reasons = ", ".join(dict.fromkeys(missing))
    if len(missing) == len(rows):
        return Entry(f"{kind}: {reasons}", None)
    return Entry(f"{kind} ({len(missing)} of {len(rows)} {reasons})", mark)


def _scale(plot: Axes, rows: Sequence[PredictionRow]) -> None:
    """Nodes by powers of two, tokens from zero to the highest interval."""
    nodes = [row.num_nodes for row in rows if row.num_nodes]
    tokens = [row.measured_tokens_per_step for row in rows] + [row.predicted_tokens_per_step for row in rows]
    tokens += [row.tokens_per_step.high for row in rows if row.tokens_per_step]
    plot.set_ylim(0, max(value for value in tokens if value is not None) * _HEADROOM)
    powers_of_two(plot.xaxis, min(nodes) / _MARGIN, max(nodes) * _MARGIN)


def _draw_predicted(plot: Axes, rows: Sequence[PredictionRow], mark: Mark) -> None:
    curve = sorted(
        {
            (row.num_nodes, row.predicted_tokens_per_step)
            for row in rows
            if row.num_nodes and row.predicted_tokens_per_step is not None
        }
    )
    if curve:
        nodes, tokens = zip(*curve, strict=True)
        plot.plot(nodes, tokens, color=mark.colour, linestyle=mark.line, marker=".", markersize=3, zorder=1.5)


def _draw_measured(plot: Axes, rows: Sequence[PredictionRow], mark: Mark) -> None:
    measured = [row for row in rows if _is_measured(row)]
    for row in measured:
        interval = row.tokens_per_step
        if interval and row.num_nodes:
            plot.vlines(row.num_nodes, interval.low, interval.high, color=mark.colour, linewidth=1.0)
    plot.plot(
        [row.num_nodes or 0.0 for row in measured],
        [row.measured_tokens_per_step or 0.0 for row in measured],
        color=mark.colour,
        marker=mark.marker,
        linestyle="none",
        markersize=6,
        markeredgecolor=INK,
        markeredgewidth=0.5,
    )
