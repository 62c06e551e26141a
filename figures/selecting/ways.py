"""Ways of speculating: which scenarios are one series of a figure, and which one of them stands for it.

What is accepted depends on models, decoding, tree and verifier, and neither on the batch size nor on where weights
are: one scenario per way is drawn, with weights as they are stored where that is planned. It depends on how many
prompts and tokens there are as well, so that a panel holds scenarios of one amount.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Generic

from figures.drawing.captions import coverage_of, left_out, outcome, provenance
from figures.drawing.columns import Entry
from figures.drawing.panels import RowT, split_functional
from figures.drawing.style import SERIES_MARKS, Mark
from figures.reading.tables import MODES, OK, SIZES, Scenario

PROMPT_SET = "chatgpt"
"""That of the artifact's scripts; other sets where a way was not planned on it."""

MARKS = (
    *(replace(mark, hatch=hatch) for mark, hatch in zip(SERIES_MARKS, ("", "////", "....", "xxxx"), strict=True)),
    Mark("", "#d55e00", "\\\\\\\\", "v", "-"),
    Mark("", "#56b4e9", "||||", "P", "--"),
)
"""As many series as a panel can hold."""

_CHOICE = (
    "Of each way of speculating: the scenario on prompt set {} with the smallest batch size that has a record, and "
    "with as many prompts as most ways of its panel; all others are in {}.csv."
)
_OTHER = "other prompt set, amount, batch size or placement"
_TOO_MANY = "too many for a panel"


@dataclass(frozen=True)
class Way(Generic[RowT]):
    """A way of speculating, by the scenario that stands for it and that scenario's rows of the table."""

    label: str
    scenario: Scenario
    rows: list[RowT]
    mark: Mark

    def entry(self, is_drawn: bool) -> Entry:
        """Its line in a legend: with its mark, or with the reason why it is not drawn."""
        if is_drawn:
            return Entry(self.label, self.mark)
        return Entry(f"{self.label}: {outcome(self.scenario, is_drawn)}", None)


@dataclass(frozen=True)
class WaysPanel(Generic[RowT]):
    """The ways of one target and decoding."""

    title: str
    ways: list[Way[RowT]]


@dataclass(frozen=True)
class Chosen(Generic[RowT]):
    """What a figure of ways draws, and a word per planned scenario for its caption."""

    panels: list[WaysPanel[RowT]]
    outcomes: list[str]

    functional: list[Scenario]
    """Those whose times mean nothing."""

    def caption(self, what: str, table: str) -> str:
        """The sentences under the figure, of what is drawn and what else is in the table."""
        scenarios = [way.scenario for panel in self.panels for way in panel.ways]
        choice = _CHOICE.format(PROMPT_SET, table)
        parts = [what, choice, provenance(scenarios), coverage_of(self.outcomes), left_out(self.functional)]
        return " ".join(filter(None, parts))


def choose_ways(
    rows: Sequence[RowT], is_drawable: Callable[[list[RowT]], bool], max_ways: int = len(MARKS)
) -> Chosen[RowT]:
    """The ways of speculating, at most so many per target and decoding: those with something to draw come first.

    ``is_drawable`` tells of a scenario's rows whether there is anything to draw.
    """
    timed, functional = split_functional([row for row in rows if row.scenario.draft is not None])
    by_scenario: dict[str, list[RowT]] = {}
    for row in timed:
        by_scenario.setdefault(row.scenario.name, []).append(row)
    by_panel: dict[tuple[str, str, str], dict[tuple[object, ...], list[list[RowT]]]] = {}
    for of_scenario in by_scenario.values():
        scenario = of_scenario[0].scenario
        panel = scenario.size, scenario.target, scenario.decoding or ""
        by_panel.setdefault(panel, {}).setdefault(_way_key(scenario), []).append(of_scenario)
    outcomes: dict[str, str] = dict.fromkeys(by_scenario, _OTHER)
    panels = []
    for (size, target, decoding), candidates in sorted(by_panel.items(), key=lambda item: _panel_order(item[0])):
        comparable = _of_one_amount([*candidates.values()])
        standing = [min(those, key=_standing_order) for those in comparable]
        standing.sort(key=lambda of_scenario: (not is_drawable(of_scenario), *_first_to_draw(of_scenario)))
        outcomes |= {of_scenario[0].scenario.name: _TOO_MANY for of_scenario in standing[max_ways:]}
        for of_scenario in standing[:max_ways]:
            scenario = of_scenario[0].scenario
            outcomes[scenario.name] = outcome(scenario, is_drawable(of_scenario))
        title = ", ".join(filter(None, [f"{size}: {target}", decoding]))
        panels.append(WaysPanel(title, _ways(sorted(standing[:max_ways], key=_on_paper))))
    return Chosen(panels or [WaysPanel("", [])], [*outcomes.values()], [*dict.fromkeys(functional)])


def _panel_order(panel: tuple[str, str, str]) -> tuple[int, str]:
    size, _, decoding = panel
    return SIZES.index(size), decoding


def _way_key(scenario: Scenario) -> tuple[object, ...]:
    if scenario.expansion is None:
        return scenario.mode, verifier_of(scenario)
    return scenario.expansion, scenario.selection, verifier_of(scenario)


def verifier_of(scenario: Scenario) -> str | None:
    """The verifier, where it makes a difference: greedy decoding accepts the same by every right one."""
    return None if scenario.decoding == "greedy" else scenario.verifier


def _of_one_amount(ways: Sequence[list[list[RowT]]]) -> list[list[list[RowT]]]:
    """The ways without what was measured otherwise than most of them were; a way that is left with nothing goes."""
    counts = Counter(amount for way in ways for amount in {*_amounts(way)})
    if not counts:
        return [*ways]
    common, _ = counts.most_common(1)[0]
    kept = [[rows for rows in way if {*_amounts([rows])} <= {common}] for way in ways]
    return [way for way in kept if way]


def _amounts(way: Iterable[list[RowT]]) -> list[tuple[object, ...]]:
    """Models and amounts of a way's records on the prompt set that is drawn."""
    scenarios = [of_scenario[0].scenario for of_scenario in way]
    return [
        (scenario.target_num_parameters, scenario.num_requests, scenario.num_repeats)
        for scenario in scenarios
        if scenario.status == OK and scenario.prompt_set in (PROMPT_SET, None)
    ]


def _standing_order(of_scenario: list[RowT]) -> tuple[object, ...]:
    scenario = of_scenario[0].scenario
    return (
        scenario.prompt_set != PROMPT_SET,
        scenario.quantisation is not None,
        scenario.status != OK,
        scenario.offload is not None,
        scenario.batch_size,
    )


def _first_to_draw(of_scenario: list[RowT]) -> tuple[object, ...]:
    """The artifact's modes, then chains, then trees as the paper states them, the widest first."""
    scenario = of_scenario[0].scenario
    width = scenario.tree_width or 0
    return scenario.mode not in MODES, scenario.branching_step == 1, width != 1, -width


def _on_paper(of_scenario: list[RowT]) -> tuple[object, ...]:
    """By width; trees that branch at once after those of the paper, automatic ones last."""
    scenario = of_scenario[0].scenario
    return scenario.expansion is None, scenario.branching_step == 1, scenario.tree_width or 0


def _ways(standing: Sequence[list[RowT]]) -> list[Way[RowT]]:
    scenarios = [of_scenario[0].scenario for of_scenario in standing]
    return [
        Way(_label(scenario, scenarios), scenario, of_scenario, mark)
        for scenario, of_scenario, mark in zip(scenarios, standing, cycle(MARKS), strict=False)
    ]


def shape(scenario: Scenario) -> str:
    """A tree's shape in words."""
    if scenario.expansion is None:
        return "automatic tree" if scenario.mode == "tree_auto" else scenario.mode
    steps = scenario.expansion.split(".")
    wide = [width for width in steps if width != "1"]
    if not wide:
        return f"chain of {len(steps)}"
    if len(wide) == 1:
        return f"width {wide[0]} at step {scenario.branching_step}"
    return f"tree {scenario.expansion}"


def _label(scenario: Scenario, beside: Sequence[Scenario]) -> str:
    """Its shape, what of verifier and selection tells it from others of that shape, and what weights are rounded to."""
    alike = [other for other in beside if shape(other) == shape(scenario)]
    verifier = verifier_of(scenario) if len({verifier_of(other) for other in alike}) > 1 else None
    selection = scenario.selection if len({other.selection for other in alike}) > 1 else None
    return ", ".join(filter(None, [shape(scenario), verifier, selection, scenario.quantisation]))
