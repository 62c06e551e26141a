"""Figure ``tokens_per_step``: verified tokens per decoding step by the width of the draft tree.

It is table 2 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import coverage_of, left_out, nothing_yet, outcome, provenance
from figures.drawing.panels import own_settings, panel_title, rows_by_decoding, split_functional
from figures.drawing.prompt_sets import (
    HEADROOM,
    Segments,
    count_gaps,
    draw_in_segment,
    draw_published_in_segments,
    segment_axis,
    set_of,
    sets_of,
)
from figures.drawing.series import line_handles
from figures.drawing.sheet import open_sheet, say_in_panel
from figures.drawing.style import PUBLISHED_MARK, Mark
from figures.reading.published import PublishedCells
from figures.reading.tables import Scenario, ScenarioRow
from figures.selecting.trees import about_trees, branching_marks

_PANEL_HEIGHT = 2.0  # inches
_ASIDE = 0.12  # so that intervals of two lines can be told apart

_WHAT = (
    "Tokens that a decoding step of a request emits, the target's own included, by the width of the draft tree. Width "
    "1 is the chain that all lines share. Bands and lines: 95% bootstrap interval over prompts."
)
_PUBLISHED = (
    "Grey: what the SpecInfer paper gives (table 2), for LLaMA-7B with LLaMA-68M on other hardware: not a result of "
    "this run. Its names of the prompt sets are in brackets."
)


def draw_tokens_per_step(planned: Sequence[ScenarioRow], published: PublishedCells) -> Figure:
    """Draw one panel per planned size and way of decoding, and in it a line per place of branching."""
    with_width = [row for row in planned if row.scenario.tree_width is not None]
    rows, functional = split_functional(own_settings(with_width, _place))
    scenarios = [row.scenario for row in rows]
    any_drawn = bool(published) and any(row.tokens_per_step for row in rows)
    parts = [_WHAT, about_trees(scenarios), _PUBLISHED if any_drawn else "", provenance(scenarios)]
    parts += [coverage_of([_outcome(row) for row in rows]), left_out(functional)]
    groups, marks = rows_by_decoding(rows), branching_marks(scenarios)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, ((size, decoding), group) in zip(sheet.panels, groups.items(), strict=True):
        _draw_panel(panel, group, marks, published, decoding)
        panel_title(panel, size, [row.scenario for row in group], decoding)
    shown = [*marks.values(), PUBLISHED_MARK] if published else [*marks.values()]
    sheet.legend(line_handles(shown), len(shown))
    return sheet.figure


def _place(scenario: Scenario) -> object:
    return scenario.size, scenario.decoding, scenario.prompt_set, scenario.tree_width, scenario.branching_step


def _outcome(row: ScenarioRow) -> str:
    return outcome(row.scenario, row.tokens_per_step is not None)


def _draw_panel(
    panel: Axes,
    rows: Sequence[ScenarioRow],
    marks: Mapping[int | None, Mark],
    published: PublishedCells,
    decoding: str,
) -> None:
    scenarios = [row.scenario for row in rows]
    widths = sorted({scenario.tree_width for scenario in scenarios if scenario.tree_width is not None})
    segments = Segments(sets_of(scenarios), widths)
    segment_axis(panel, segments, "tree width")
    panel.set_ylabel("tokens per step")
    tops = [row.tokens_per_step.top for row in rows if row.tokens_per_step]
    if not tops:
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet(scenarios))
        return
    top = max([*tops, *(value for (of, *_), value in published.items() if of == decoding)])
    panel.set_ylim(0, top * HEADROOM)
    draw_published_in_segments(panel, segments, published, decoding)
    for name in segments.prompt_sets:
        of_set = [row for row in rows if set_of(row.scenario) == name]
        for number, (step, mark) in enumerate(marks.items()):
            of_line = [row for row in of_set if row.scenario.branching_step in (step, None)]
            points = {row.scenario.tree_width or 0: row.tokens_per_step for row in of_line if row.tokens_per_step}
            draw_in_segment(panel, segments, name, points, mark, (number - (len(marks) - 1) / 2) * _ASIDE)
        count_gaps(panel, segments, name, [_outcome(row) for row in of_set])
