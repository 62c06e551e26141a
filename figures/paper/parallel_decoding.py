"""Figure ``parallel_decoding``: latency of a tree verified as one row, and as one row per path.

It is figure 11 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.bars import GROUP_WIDTH, bar_handles, draw_bar, draw_gap, label_above
from figures.drawing.captions import coverage_of, left_out, outcome, provenance
from figures.drawing.panels import groups_of, latency_axes, own_settings, panel_title, split_functional
from figures.drawing.sheet import open_sheet
from figures.drawing.style import MODE_MARKS
from figures.reading.tables import Scenario, ScenarioRow
from figures.selecting.trees import about_trees

_PANEL_HEIGHT = 2.3  # inches
_HEADROOM = 1.15  # room for labels above the highest whisker
_MARKS = {
    "tree": replace(MODE_MARKS["tree"], label="tree-based parallel decoding"),
    "sequences": replace(MODE_MARKS["sequence"], label="sequence-based parallel decoding"),
}

_WHAT = (
    "Latency of the same draft tree, verified as one row with a tree mask, or path by path as rows of their own. Bars: "
    "median over requests of the latency per generated token. Whiskers: 95% bootstrap interval over prompts and "
    "repeats. Labels: sequence-based over tree-based median."
)
_PUBLISHED = (
    "The SpecInfer paper (figure 11, LLaMA-7B with LLaMA-68M on other hardware) says that both are on par at small "
    "batch sizes, and that tree-based is up to 1.8× faster at large ones; it gives no other numbers."
)


def draw_parallel_decoding(planned: Sequence[ScenarioRow]) -> Figure:
    """Draw one panel per placement that is planned to be timed, and in it a pair of bars per batch size."""
    of_layout = [row for row in planned if row.scenario.tree_layout in _MARKS]
    rows, functional = split_functional(own_settings(of_layout, _place))
    scenarios = [row.scenario for row in rows]
    parts = [_WHAT, about_trees(scenarios), _PUBLISHED, provenance(scenarios)]
    parts += [coverage_of([_outcome(row) for row in rows]), left_out(functional)]
    groups = groups_of(rows)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, group in zip(sheet.panels, groups, strict=True):
        _draw_panel(panel, group.rows)
        panel_title(panel, group.size, [row.scenario for row in group.rows], group.weights)
    sheet.legend(bar_handles(_MARKS.values()), len(_MARKS))
    return sheet.figure


def _place(scenario: Scenario) -> object:
    return scenario.size, scenario.offload, scenario.quantisation, scenario.batch_size, scenario.tree_layout


def _outcome(row: ScenarioRow) -> str:
    return outcome(row.scenario, row.latency_ms is not None)


def _draw_panel(panel: Axes, rows: Sequence[ScenarioRow]) -> None:
    panel.tick_params(axis="x", length=0)
    batch_sizes = latency_axes(panel, rows, _HEADROOM)
    if not batch_sizes:
        return
    for place, batch_size in enumerate(batch_sizes):
        _draw_pair(panel, place, [row for row in rows if row.scenario.batch_size == batch_size])


def _draw_pair(panel: Axes, place: int, rows: Sequence[ScenarioRow]) -> None:
    """The bars of one batch size, with the ratio of their medians above where both are there."""
    width = GROUP_WIDTH / len(_MARKS)
    found = {}
    for number, (layout, mark) in enumerate(_MARKS.items()):
        aside = (number - (len(_MARKS) - 1) / 2) * width
        for row in rows:
            if row.scenario.tree_layout == layout:
                if row.latency_ms is None:
                    draw_gap(panel, place + aside, width, _outcome(row))
                else:
                    draw_bar(panel, place + aside, width, row.latency_ms, mark)
                    found[layout] = row.latency_ms
    if len(found) == len(_MARKS):
        ratio = found["sequences"].value / found["tree"].value
        label_above(panel, place, max(latency.top for latency in found.values()), f"{ratio:.2f}×", 1)
