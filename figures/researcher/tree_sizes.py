"""Figure ``tree_sizes``: how many tokens the target verifies per step, where trees choose their size by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import coverage, left_out, nothing_yet, provenance
from figures.drawing.panels import (
    batch_axis,
    name_gaps,
    panel_title,
    rows_by_size,
    rows_by_weights,
    split_functional,
    weights,
)
from figures.drawing.series import draw_line, line_handles
from figures.drawing.sheet import open_sheet, say_in_panel
from figures.drawing.style import SERIES_MARKS, Mark
from figures.reading.tables import OK, ScenarioRow

_PANEL_HEIGHT = 2.3  # inches
_TREES = ("tree", "tree_auto")
_AS_PUBLISHED = Mark("published tree", "#909090", "", "_", "--")
_HEADROOM = 1.15

_WHAT = (
    "Speculated tokens that the target verifies per decoding step of a request, mean over all steps. The size and "
    "shape of the trees follow measured acceptance and cost; there is a line per way of keeping the target's weights. "
    "Grey: a tree of the published expansion."
)


def draw_tree_sizes(rows: Sequence[ScenarioRow]) -> Figure:
    """Draw one panel per size that is planned to be timed."""
    rows, functional = split_functional([row for row in rows if row.scenario.mode in _TREES])
    scenarios = [row.scenario for row in rows]
    caption = " ".join(filter(None, [_WHAT, provenance(scenarios), coverage(scenarios), left_out(functional)]))
    groups = {size: _by_weights(of_size) for size, of_size in rows_by_size(rows).items()}
    marks = _marks(groups.values())
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), caption)
    for panel, (size, of_size) in zip(sheet.panels, groups.items(), strict=True):
        _draw_panel(panel, of_size, marks)
        panel_title(panel, size, [row.scenario for of_weights in of_size.values() for row in of_weights])
    shown = [*marks.values(), _AS_PUBLISHED]
    sheet.legend(line_handles(shown), len(shown))
    return sheet.figure


def _by_weights(rows: Sequence[ScenarioRow]) -> dict[str, list[ScenarioRow]]:
    """How weights are kept, in words -> the rows that keep them so."""
    return {weights(of_weights, any_streamed=True): of_weights for of_weights in rows_by_weights(rows)}


def _marks(groups: Iterable[Mapping[str, Sequence[ScenarioRow]]]) -> dict[str, Mark]:
    """By how weights are kept where trees are automatic, in the order of the plan."""
    kept = dict.fromkeys(
        how for group in groups for how, rows in group.items() if any(row.scenario.mode == "tree_auto" for row in rows)
    )
    # In short: a legend is one line.
    labels = [how.removeprefix("streamed ").replace(" without streaming", "") for how in kept]
    marks = [replace(mark, label=label) for label, mark in zip(labels, cycle(SERIES_MARKS), strict=False)]
    return dict(zip(kept, marks, strict=True))


def _draw_panel(panel: Axes, groups: Mapping[str, Sequence[ScenarioRow]], marks: Mapping[str, Mark]) -> None:
    rows = [row for of_weights in groups.values() for row in of_weights]
    batch_sizes = batch_axis(panel, [row.scenario for row in rows])
    panel.set_ylabel("verified tokens per step")
    measured = [row.draft_tokens_per_step for row in rows if row.draft_tokens_per_step is not None]
    if not measured:
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet([row.scenario for row in rows]))
        return
    panel.set_ylim(0, max(*measured, 1) * _HEADROOM)
    for how, of_weights in groups.items():
        for mode, mark in (("tree", _AS_PUBLISHED), ("tree_auto", marks.get(how))):
            own = [row for row in of_weights if row.scenario.mode == mode]
            if mark is not None and own:
                _draw_line(panel, own, mark, batch_sizes)
    name_gaps(panel, _gaps(groups, batch_sizes))


def _draw_line(panel: Axes, rows: Sequence[ScenarioRow], mark: Mark, batch_sizes: Sequence[int]) -> None:
    """A line with a gap where a point is not there."""
    by_batch_size = {row.scenario.batch_size: row.draft_tokens_per_step for row in rows}
    known = [by_batch_size.get(batch_size) for batch_size in batch_sizes]
    values = [float("nan") if value is None else value for value in known]
    draw_line(panel, range(len(batch_sizes)), values, mark)


def _gaps(groups: Mapping[str, Sequence[ScenarioRow]], batch_sizes: Sequence[int]) -> dict[int, list[str]]:
    """By place of the batch axis, what has no point there and why."""
    return {
        place: [
            f"{how}: {row.scenario.status}"
            for how, rows in groups.items()
            for row in rows
            if row.scenario.mode == "tree_auto" and row.scenario.batch_size == batch_size and row.scenario.status != OK
        ]
        for place, batch_size in enumerate(batch_sizes)
    }
