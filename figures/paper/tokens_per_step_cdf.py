"""Figure ``tokens_per_step_cdf``: how the mean tokens per step of prompts are distributed, by tree width.

It is figure 9 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import coverage_of, left_out, nothing_yet, outcome, provenance
from figures.drawing.panels import own_settings, rows_by_decoding, split_functional
from figures.drawing.series import line_handles
from figures.drawing.sheet import open_sheet, say_in_panel
from figures.drawing.style import FAINT, INK, SMALL_TEXT, Mark
from figures.reading.tables import OK, RequestRow, Scenario, ScenarioRow
from figures.selecting.trees import about_trees, branching, branching_steps, width_marks

PROMPT_SET = "alpaca"
"""That of the paper's figure."""
_PANEL_HEIGHT = 2.0  # inches
_HEADROOM = 1.06

_WHAT = (
    "Share of the prompts of set alpaca (x) whose mean tokens per decoding step are at most so many (y), by the width "
    "of the draft tree. The target's own token counts. A prompt's mean is over all its steps in all repeats. Width 1 "
    "is the chain that both places of branching share."
)

Means = Mapping[str, Sequence[float]]
"""Scenario -> mean tokens per step of its prompts, in increasing order."""


def draw_tokens_per_step_cdf(planned: Sequence[ScenarioRow], requests: Sequence[RequestRow]) -> Figure:
    """Draw a row of panels per planned size and way of decoding, with a panel per place of branching."""
    of_set = [row for row in planned if row.scenario.prompt_set == PROMPT_SET and row.scenario.tree_width is not None]
    rows, functional = split_functional(own_settings(of_set, _place))
    scenarios = [row.scenario for row in rows]
    means = prompt_means(requests)
    outcomes = [outcome(scenario, scenario.name in means) for scenario in scenarios]
    parts = [_WHAT, about_trees(scenarios), provenance(scenarios), coverage_of(outcomes), left_out(functional)]
    groups, marks = rows_by_decoding(rows), width_marks(scenarios)
    steps: list[int | None] = [*branching_steps(scenarios)] or [None]
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)), columns=len(steps))
    panels = iter(sheet.panels)
    for (size, decoding), group in groups.items():
        highest = max((mean for row in group for mean in means.get(row.scenario.name, ())), default=None)
        for step in steps:
            panel = next(panels)
            of_panel = [row.scenario for row in group if row.scenario.branching_step in (step, None)]
            _draw_panel(panel, of_panel, means, marks, highest)
            panel.set_title(", ".join(filter(None, [size, decoding, branching(step)])))
    sheet.legend(line_handles(marks.values()), max(len(marks), 1))
    return sheet.figure


def _place(scenario: Scenario) -> object:
    return scenario.size, scenario.decoding, scenario.tree_width, scenario.branching_step


def prompt_means(requests: Sequence[RequestRow]) -> Means:
    """Tokens of all steps of a prompt over their number, per scenario; prompts without a step are left out."""
    totals: dict[str, dict[int, tuple[float, int]]] = {}
    for row in requests:
        if row.tokens_per_step is not None and row.num_decoding_steps > 0:
            of_scenario = totals.setdefault(row.scenario, {})
            num_tokens, num_steps = of_scenario.get(row.prompt_index, (0.0, 0))
            tokens_here = row.tokens_per_step * row.num_decoding_steps
            of_scenario[row.prompt_index] = (num_tokens + tokens_here, num_steps + row.num_decoding_steps)
    return {
        scenario: sorted(num_tokens / num_steps for num_tokens, num_steps in prompts.values())
        for scenario, prompts in totals.items()
    }


def _draw_panel(
    panel: Axes, scenarios: Sequence[Scenario], means: Means, marks: Mapping[int, Mark], highest: float | None
) -> None:
    panel.set_xlim(0, 1)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    panel.set_xlabel("share of prompts")
    panel.set_ylabel("tokens per step")
    if highest is None:
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet(scenarios))
        return
    panel.set_ylim(1, max(highest * _HEADROOM, 1.1))  # A step emits one token at least.
    for scenario in sorted(scenarios, key=lambda scenario: scenario.tree_width or 0):
        of_prompts = means.get(scenario.name)
        if of_prompts and scenario.tree_width is not None:
            _draw_steps(panel, of_prompts, marks[scenario.tree_width])
    told = [(scenario, outcome(scenario, scenario.name in means)) for scenario in scenarios]
    gaps = [f"width {scenario.tree_width}: {reason}" for scenario, reason in told if reason != OK]
    panel.text(
        0.98,
        0.02,
        "\n".join(gaps),
        transform=panel.transAxes,
        ha="right",
        va="bottom",
        fontsize=SMALL_TEXT,
        color=FAINT,
    )


def _draw_steps(panel: Axes, values: Sequence[float], mark: Mark) -> None:
    """The i-th of n prompts stands from (i - 1) / n to i / n."""
    shares = [number / len(values) for number in range(len(values) + 1)]
    panel.step(
        shares,
        [*values, values[-1]],
        where="post",
        color=mark.colour,
        linestyle=mark.line,
        marker=mark.marker,
        markevery=max(len(values) // 5, 1),
        markeredgecolor=INK,
        markeredgewidth=0.5,
        markersize=4,
    )
