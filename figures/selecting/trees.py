"""Words and marks of draft trees: how wide they are, and where they branch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle

from figures.drawing.style import SERIES_MARKS, WIDTH_MARKS, Mark
from figures.reading.tables import Scenario

_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}
_WHOSE = {3: "as the paper states", 1: "as the artifact's code runs"}
_IN_SHORT = {3: "(paper)", 1: "(artifact's code)"}
"""Step at which trees of the SpecInfer paper's width study branch -> where that is written."""


def branching(step: int | None) -> str:
    """Where a tree branches, in words; "" for a chain."""
    return "" if step is None else f"branching at the {_ORDINALS.get(step, f'{step}th')} step"


def branching_steps(scenarios: Iterable[Scenario]) -> list[int]:
    """The steps at which trees branch: the paper's first, then in order."""
    steps = {scenario.branching_step for scenario in scenarios if scenario.branching_step is not None}
    return sorted(steps, key=lambda step: (step != 3, step))


def branching_marks(scenarios: Iterable[Scenario]) -> dict[int | None, Mark]:
    """A mark per step at which trees branch; one for chains, under None, where no tree branches."""
    steps = branching_steps(scenarios)
    labels = [" ".join(filter(None, [f"branching at step {step}", _IN_SHORT.get(step)])) for step in steps] or ["chain"]
    marks = [replace(mark, label=label) for label, mark in zip(labels, cycle(SERIES_MARKS), strict=False)]
    keys: list[int | None] = [*steps] or [None]
    return dict(zip(keys, marks, strict=True))


def width_marks(scenarios: Iterable[Scenario]) -> dict[int, Mark]:
    """A mark per tree width, in order."""
    widths = sorted({scenario.tree_width for scenario in scenarios if scenario.tree_width is not None})
    marks = zip(widths, cycle(WIDTH_MARKS), strict=False)
    return {width: replace(mark, label=f"width {width}") for width, mark in marks}


def about_trees(scenarios: Sequence[Scenario]) -> str:
    """Sentences on which trees these are and who writes of them; "" if there is none."""
    told = []
    for step in branching_steps(scenarios):
        shapes = ", ".join(_shapes([scenario for scenario in scenarios if scenario.branching_step == step]))
        told.append(f"{shapes}: {', '.join(filter(None, [branching(step), _WHOSE.get(step)]))}.")
    return f"Trees: {' '.join(told)}" if told else ""


def expansions(scenarios: Iterable[Scenario]) -> str:
    """The trees of the scenarios, as "<5,5,5>"; "" if none is fixed."""
    found = dict.fromkeys(scenario.expansion for scenario in scenarios if scenario.expansion)
    return ", ".join(_bracketed(expansion.split(".")) for expansion in found)


def _shapes(scenarios: Sequence[Scenario]) -> list[str]:
    """Their expansions, with k for a width that differs between trees that are else alike."""
    widths_by_shape: dict[tuple[str, ...], list[str]] = {}
    for scenario in scenarios:
        if scenario.expansion and scenario.branching_step is not None:
            steps = scenario.expansion.split(".")
            place = scenario.branching_step - 1
            shape = (*steps[:place], "k", *steps[place + 1 :])
            widths_by_shape.setdefault(shape, []).append(steps[place])
    return [
        _bracketed(shape if len(set(widths)) > 1 else [widths[0] if step == "k" else step for step in shape])
        for shape, widths in widths_by_shape.items()
    ]


def _bracketed(steps: Sequence[str]) -> str:
    return f"<{','.join(steps)}>"
