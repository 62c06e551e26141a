"""Figure ``sampling_algorithms``: tokens per step of naive and of multi-step speculative sampling.

It is table 3 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures.drawing.bars import GROUP_WIDTH, bar_handles, draw_bar, draw_gap, draw_published_bar, label_above
from figures.drawing.captions import coverage_of, left_out, nothing_yet, outcome, provenance
from figures.drawing.panels import own_settings, rows_by_size, split_functional
from figures.drawing.prompt_sets import set_label, set_of, sets_of
from figures.drawing.sheet import open_sheet, say_in_panel, width_of
from figures.drawing.style import FAINT, INK, PUBLISHED_FILL, Mark
from figures.reading.published import PublishedSampling
from figures.reading.tables import Scenario, ScenarioRow
from figures.selecting.trees import about_trees, branching, branching_steps

_PANEL_HEIGHT = 2.0  # inches
_HEADROOM = 1.15  # room for labels above the highest whisker
_NAIVE, _MULTI_STEP = "sampler_match", "mss"
_MARKS = {
    _NAIVE: Mark("naive sampling", "#e69f00", "////"),
    _MULTI_STEP: Mark("multi-step speculative sampling", "#0072b2", "...."),
}
"""Verifier -> how it is drawn."""
_PAIR_GAP = 0.06  # of the distance between two prompt sets, between measured and published bars

_WHAT = (
    "Tokens that a decoding step of a request emits, the target's own included, with stochastic decoding and drafts "
    "that are drawn alike. Whiskers: 95% bootstrap interval over prompts. Labels: multi-step over naive."
)
_PUBLISHED = (
    "Grey: what the SpecInfer paper gives (table 3), for LLaMA-7B with LLaMA-68M on other "
    "hardware: not a result of this run. Its names of the prompt sets are in brackets."
)


def draw_sampling_algorithms(planned: Sequence[ScenarioRow], published: Mapping[str, PublishedSampling]) -> Figure:
    """Draw one panel per planned size and place of branching."""
    of_verifiers = [row for row in planned if row.scenario.verifier in _MARKS]
    rows, functional = split_functional(own_settings(of_verifiers, _place))
    scenarios = [row.scenario for row in rows]
    any_drawn = bool(published) and any(row.tokens_per_step for row in rows)
    parts = [_WHAT, about_trees(scenarios), _PUBLISHED if any_drawn else "", provenance(scenarios)]
    parts += [coverage_of([_outcome(row) for row in rows]), left_out(functional)]
    groups = _groups(rows)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, ((size, how), group) in zip(sheet.panels, groups.items(), strict=True):
        _draw_panel(panel, group, published)
        targets = " and ".join(dict.fromkeys(row.scenario.target for row in group))
        panel.set_title(f"{size}: {', '.join(filter(None, [targets, how]))}" if group else "")
    handles = bar_handles(_MARKS.values())
    if published:
        handles.append(Patch(facecolor=PUBLISHED_FILL, edgecolor=FAINT, label="published"))
    sheet.legend(handles, len(handles))
    return sheet.figure


def _place(scenario: Scenario) -> object:
    return scenario.size, scenario.prompt_set, scenario.verifier, scenario.branching_step


def _outcome(row: ScenarioRow) -> str:
    return outcome(row.scenario, row.tokens_per_step is not None)


def _groups(rows: Sequence[ScenarioRow]) -> dict[tuple[str, str], list[ScenarioRow]]:
    """The rows of each size and place of branching, small and the paper's place first; an empty one if none is."""
    groups: dict[tuple[str, str], list[ScenarioRow]] = {}
    steps: list[int | None] = [*branching_steps(row.scenario for row in rows), None]
    for size, of_size in rows_by_size(rows).items():
        for step in steps:
            of_step = [row for row in of_size if row.scenario.branching_step == step]
            if of_step:
                groups[size, branching(step)] = of_step
    return groups or {("", ""): []}


def _draw_panel(panel: Axes, rows: Sequence[ScenarioRow], published: Mapping[str, PublishedSampling]) -> None:
    names = sets_of(row.scenario for row in rows)
    room = width_of(panel) / max(len(names), 1)
    panel.set_xticks(range(len(names)), [set_label(name, room * 0.95) for name in names])
    panel.set_xlim(-0.5, max(len(names), 1) - 0.5)
    panel.tick_params(axis="x", length=0)
    panel.set_ylabel("tokens per step")
    tops = [row.tokens_per_step.top for row in rows if row.tokens_per_step]
    if not tops:
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet([row.scenario for row in rows]))
        return
    known = {name: published[name] for name in names if name in published}
    panel.set_ylim(0, max([*tops, *(value.multi_step for value in known.values())]) * _HEADROOM)
    width = (GROUP_WIDTH - _PAIR_GAP) / 4
    for place, name in enumerate(names):
        of_set = [row for row in rows if set_of(row.scenario) == name]
        middle = width + _PAIR_GAP / 2 if name in known else 0
        _draw_measured(panel, place - middle, width, of_set)
        if name in known:
            _draw_published(panel, place + middle, width, known[name])


def _draw_measured(panel: Axes, middle: float, width: float, rows: Sequence[ScenarioRow]) -> None:
    found = {}
    for row in rows:
        place = middle + (-width / 2 if row.scenario.verifier == _NAIVE else width / 2)
        if row.tokens_per_step is None:
            draw_gap(panel, place, width, _outcome(row))
        else:
            draw_bar(panel, place, width, row.tokens_per_step, _MARKS[row.scenario.verifier or ""])
            found[row.scenario.verifier] = row.tokens_per_step
    if len(found) == len(_MARKS):
        ratio = found[_MULTI_STEP].value / found[_NAIVE].value
        _label(panel, middle, max(tokens.top for tokens in found.values()), ratio, INK)


def _draw_published(panel: Axes, middle: float, width: float, published: PublishedSampling) -> None:
    draw_published_bar(panel, middle - width / 2, width, published.naive, _MARKS[_NAIVE])
    draw_published_bar(panel, middle + width / 2, width, published.multi_step, _MARKS[_MULTI_STEP])
    top = max(published.naive, published.multi_step)
    _label(panel, middle, top, published.multi_step / published.naive, FAINT)


def _label(panel: Axes, place: float, top: float, ratio: float, colour: str) -> None:
    label_above(panel, place, top, f"{ratio:.2f}×", 1, colour)
