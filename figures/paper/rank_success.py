"""Figure ``rank_success``: how often the target's token is among the first k proposals of the draft.

It is table 1 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from figures.drawing.style import PUBLISHED_MARK, SERIES_MARKS
from figures.reading.cells import Measured
from figures.reading.published import PublishedCells
from figures.reading.tables import Scenario, ScenarioRow, SuccessRateRow
from figures.selecting.trees import expansions

_PANEL_HEIGHT = 2.0  # inches
_MARK = replace(SERIES_MARKS[0], label="measured")

_WHAT = (
    "Share of verified nodes at which one of the draft's first k proposals is accepted. Greedy: its likeliest tokens "
    "in order. Stochastic: independent draws, tried in turn. Bands and lines: 95% bootstrap interval over prompts."
)
_PUBLISHED = (
    "Grey: what the SpecInfer paper gives (table 1), for LLaMA-7B with LLaMA-68M on other hardware: not a result of "
    "this run. Its names of the prompt sets are in brackets."
)

Rates = Mapping[str, Mapping[int, Measured]]
"""Scenario -> k -> success rate."""


def draw_rank_success(
    planned: Sequence[ScenarioRow], rates: Sequence[SuccessRateRow], published: PublishedCells
) -> Figure:
    """Draw one panel per planned size and way of decoding."""
    rows, functional = split_functional(own_settings(planned, _place))
    scenarios = [row.scenario for row in rows]
    known = _by_scenario(rates)
    outcomes = [outcome(scenario, scenario.name in known) for scenario in scenarios]
    any_drawn = bool(published) and any(scenario.name in known for scenario in scenarios)
    trees = f"Trees: {expansions(scenarios)}." if expansions(scenarios) else ""
    parts = [_WHAT, trees, _PUBLISHED if any_drawn else "", provenance(scenarios)]
    parts += [coverage_of(outcomes), left_out(functional)]
    groups = rows_by_decoding(rows)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, ((size, decoding), group) in zip(sheet.panels, groups.items(), strict=True):
        of_panel = [row.scenario for row in group]
        _draw_panel(panel, of_panel, known, published, decoding)
        panel_title(panel, size, of_panel, decoding)
    marks = [_MARK, PUBLISHED_MARK] if published else [_MARK]
    sheet.legend(line_handles(marks), len(marks))
    return sheet.figure


def _place(scenario: Scenario) -> object:
    return scenario.size, scenario.decoding, scenario.prompt_set


def _by_scenario(rates: Sequence[SuccessRateRow]) -> Rates:
    found: dict[str, dict[int, Measured]] = {}
    for row in rates:
        if row.k is not None and row.rate is not None:
            found.setdefault(row.scenario, {})[row.k] = row.rate
    return found


def _draw_panel(
    panel: Axes, scenarios: Sequence[Scenario], rates: Rates, published: PublishedCells, decoding: str
) -> None:
    own = {scenario.name: rates.get(scenario.name, {}) for scenario in scenarios}
    widest = max((scenario.tree_width or 0 for scenario in scenarios), default=0)
    counts = sorted({*range(1, widest + 1), *(k for of_scenario in own.values() for k in of_scenario)})
    segments = Segments(sets_of(scenarios), counts)
    segment_axis(panel, segments, "first k proposals of the draft")
    panel.set_ylabel("success rate")
    if not any(own.values()):
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet(scenarios))
        return
    panel.set_ylim(0, HEADROOM)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    draw_published_in_segments(panel, segments, published, decoding)
    for scenario in scenarios:
        draw_in_segment(panel, segments, set_of(scenario), own[scenario.name], _MARK)
        count_gaps(panel, segments, set_of(scenario), [outcome(scenario, bool(own[scenario.name]))])
