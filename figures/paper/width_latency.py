"""Figure ``width_latency``: latency per token against the batch size, by the width of the draft tree.

It is figure 10 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import coverage_of, left_out, outcome, provenance
from figures.drawing.panels import groups_of, latency_axes, name_gaps, own_settings, panel_title, split_functional
from figures.drawing.series import draw_series, line_handles
from figures.drawing.sheet import open_sheet
from figures.drawing.style import INK, SMALL_TEXT, Mark
from figures.reading.tables import OK, Scenario, ScenarioRow
from figures.selecting.trees import about_trees, width_marks

_PANEL_HEIGHT = 2.3  # inches
_ASIDE = 0.012  # of the axis, so that intervals can be told apart
_HEADROOM = 1.12

_WHAT = (
    "Median over requests of the latency per generated token, by the width of the draft tree. Upright lines: 95% "
    "bootstrap interval over prompts and repeats. Above: the width with the lowest median of those that are drawn."
)
_PUBLISHED = (
    "The SpecInfer paper (figure 10, LLaMA-7B with LLaMA-68M on other hardware) says that wider is faster at batch "
    "sizes 1 and 2, and that widths 2 or 3 are the fastest from 4 on; it gives no numbers."
)


def draw_width_latency(planned: Sequence[ScenarioRow]) -> Figure:
    """Draw one panel per placement that is planned to be timed, and in it a line per width."""
    with_width = [row for row in planned if row.scenario.tree_width is not None]
    rows, functional = split_functional(own_settings(with_width, _place))
    scenarios = [row.scenario for row in rows]
    parts = [_WHAT, about_trees(scenarios), _PUBLISHED, provenance(scenarios)]
    parts += [coverage_of([_outcome(row) for row in rows]), left_out(functional)]
    groups, marks = groups_of(rows), width_marks(scenarios)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, group in zip(sheet.panels, groups, strict=True):
        _draw_panel(panel, group.rows, marks)
        panel_title(panel, group.size, [row.scenario for row in group.rows], group.weights)
    sheet.legend(line_handles(marks.values()), max(len(marks), 1))
    return sheet.figure


def _place(scenario: Scenario) -> object:
    return scenario.size, scenario.offload, scenario.quantisation, scenario.batch_size, scenario.tree_width


def _outcome(row: ScenarioRow) -> str:
    return outcome(row.scenario, row.latency_ms is not None)


def _draw_panel(panel: Axes, rows: Sequence[ScenarioRow], marks: Mapping[int, Mark]) -> None:
    batch_sizes = latency_axes(panel, rows, _HEADROOM)
    if not batch_sizes:
        return
    for number, (width, mark) in enumerate(marks.items()):
        latencies = {row.scenario.batch_size: row.latency_ms for row in rows if row.scenario.tree_width == width}
        aside = (number - (len(marks) - 1) / 2) * _ASIDE * len(batch_sizes)
        places = [place + aside for place in range(len(batch_sizes))]
        draw_series(panel, places, [latencies.get(batch_size) for batch_size in batch_sizes], mark, band=False)
    for place, batch_size in enumerate(batch_sizes):
        of_batch = [row for row in rows if row.scenario.batch_size == batch_size]
        _name_lowest(panel, place, of_batch)
        reasons = [f"width {row.scenario.tree_width}: {_outcome(row)}" for row in of_batch if _outcome(row) != OK]
        name_gaps(panel, {place: reasons})


def _name_lowest(panel: Axes, place: int, rows: Sequence[ScenarioRow]) -> None:
    """Say at the upper edge which width is the fastest, where several can be compared."""
    medians = {row.scenario.tree_width: row.latency_ms.value for row in rows if row.latency_ms}
    if len(medians) > 1:
        lowest = min(medians, key=lambda width: medians[width])
        text = f"width {lowest}"
        upper = panel.get_xaxis_transform()
        panel.text(place, 0.995, text, transform=upper, ha="center", va="top", fontsize=SMALL_TEXT, color=INK)
