"""Figure ``tree_sizes``: how many tokens the target verifies per step, where trees choose their size by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.captions import coverage, left_out, nothing_yet, provenance
from figures.panels import batch_axis, draw_line, name_gaps, panel_title, rows_by_size, split_functional, weights
from figures.sheet import open_sheet, say_in_panel
from figures.style import SERIES_MARKS, Mark
from figures.tables import OK, LatencyRow, Scenario

_PANEL_HEIGHT = 2.3  # inches
_TREES = ("tree", "tree_auto")
_AS_PUBLISHED = Mark("published tree", "#909090", "", "_", "--")
_HEADROOM = 1.15

_WHAT = (
    "Speculated tokens that the target verifies per decoding step of a request, mean over all steps, in a tree whose "
    "size and shape follow measured acceptance and cost, by how the target's weights are kept; grey: a tree of the "
    "published expansion."
)


def draw_tree_sizes(rows: Sequence[LatencyRow]) -> Figure:
    """Draw one panel per size that is planned to be timed."""
    rows, functional = split_functional([row for row in rows if row.scenario.mode in _TREES])
    scenarios = [row.scenario for row in rows]
    caption = " ".join(filter(None, [_WHAT, provenance(scenarios), coverage(scenarios), left_out(functional)]))
    groups, marks = rows_by_size(rows), _marks(scenarios)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), caption)
    for panel, (size, of_size) in zip(sheet.panels, groups.items(), strict=True):
        _draw_panel(panel, of_size, marks)
        panel_title(panel, size, [row.scenario for row in of_size])
    shown = [*marks.values(), _AS_PUBLISHED]
    handles = [Line2D([], [], color=m.colour, marker=m.marker, linestyle=m.line, label=m.label) for m in shown]
    sheet.legend(handles, len(handles))
    return sheet.figure


def _marks(scenarios: Sequence[Scenario]) -> dict[str, Mark]:
    """By how weights are kept where trees are automatic, in the order of the plan."""
    kept = dict.fromkeys(_weights(scenario) for scenario in scenarios if scenario.mode == "tree_auto")
    return {
        how: replace(mark, label=how.removeprefix("streamed "))
        for how, mark in zip(kept, cycle(SERIES_MARKS), strict=False)
    }


def _weights(scenario: Scenario) -> str:
    return weights(scenario, any_streamed=True)


def _draw_panel(panel: Axes, rows: Sequence[LatencyRow], marks: dict[str, Mark]) -> None:
    batch_sizes = batch_axis(panel, [row.scenario for row in rows])
    panel.set_ylabel("verified tokens per step")
    measured = [row.draft_tokens_per_step for row in rows if row.draft_tokens_per_step is not None]
    if not measured:
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet([row.scenario for row in rows]))
        return
    panel.set_ylim(0, max(*measured, 1) * _HEADROOM)
    for how in dict.fromkeys(_weights(row.scenario) for row in rows):
        for mode, mark in (("tree", _AS_PUBLISHED), ("tree_auto", marks.get(how))):
            own = [row for row in rows if (row.scenario.mode, _weights(row.scenario)) == (mode, how)]
            if mark is not None and own:
                _draw_line(panel, own, mark, batch_sizes)
    name_gaps(panel, _gaps(rows, batch_sizes))


def _draw_line(panel: Axes, rows: Sequence[LatencyRow], mark: Mark, batch_sizes: Sequence[int]) -> None:
    """A line with a gap where a point is not there."""
    by_batch_size = {row.scenario.batch_size: row.draft_tokens_per_step for row in rows}
    known = [by_batch_size.get(batch_size) for batch_size in batch_sizes]
    values = [float("nan") if value is None else value for value in known]
    draw_line(panel, range(len(batch_sizes)), values, mark)


def _gaps(rows: Sequence[LatencyRow], batch_sizes: Sequence[int]) -> dict[int, list[str]]:
    """By place of the batch axis, what has no point there and why."""
    return {
        place: [
            f"{_weights(row.scenario)}: {row.scenario.status}"
            for row in rows
            if row.scenario.mode == "tree_auto" and row.scenario.batch_size == batch_size and row.scenario.status != OK
        ]
        for place, batch_size in enumerate(batch_sizes)
    }
