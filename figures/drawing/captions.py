"""Sentences under a figure: what was measured, on what, and what is not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from figures.reading.tables import OK, SIZES, Scenario

NOT_MEASURED = "not measured"
"""Of a record that counts but does not hold what the figure shows."""
_COMMIT_LENGTH = 10


def coverage(scenarios: Sequence[Scenario]) -> str:
    """How many of the planned scenarios are drawn, and why the others are not."""
    return coverage_of([scenario.status for scenario in scenarios])


def outcome(scenario: Scenario, is_drawn: bool) -> str:
    """OK where a scenario is drawn, else why it is not."""
    if is_drawn:
        return OK
    return scenario.status if scenario.status != OK else NOT_MEASURED


def coverage_of(outcomes: Sequence[str]) -> str:
    """The same from one word per planned scenario: OK if it is drawn, else why it is not."""
    counts = Counter(outcomes)
    num_drawn = counts.pop(OK, 0)
    told = f"{num_drawn} of {len(outcomes)} planned scenarios are drawn"
    reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items()))
    return f"{told}; not drawn: {reasons}." if reasons else f"{told}."


def left_out(functional: Sequence[Scenario]) -> str:
    """How many scenarios are not drawn because their times mean nothing, and where to look instead; "" if none."""
    if not functional:
        return ""
    sizes = " and ".join(size for size in SIZES if any(scenario.size == size for scenario in functional))
    return (
        f"{_counted(len(functional), 'functional scenario')} of size {sizes} left out: they show that it works, and "
        "their times are the scheduler's. Whether their tokens are right is in token_equality.csv."
    )


def nothing_yet(scenarios: Sequence[Scenario]) -> str:
    """What stands in a panel without a single record."""
    return f"no records yet (0/{len(scenarios)})" if scenarios else "nothing is planned to be timed"


def provenance(scenarios: Sequence[Scenario]) -> str:
    """Models, machine, amount and commit of the measured scenarios; what differs between them is said to differ."""
    measured = [scenario for scenario in scenarios if scenario.status == OK]
    if not measured:
        return ""
    facets = [
        _facet("devices", (scenario.device or "unknown device" for scenario in measured)),
        _facet("numbers of threads", (_threads(scenario) for scenario in measured)),
        _facet("precisions", (scenario.dtype or "unknown precision" for scenario in measured)),
        _facet("amounts", (_amount(scenario) for scenario in measured)),
        _facet("commits", (short_commit(scenario.commit) for scenario in measured), "commit "),
    ]
    return f"{_models(measured)} Measured on {'; '.join(facet for facet in facets if facet)}."


def short_commit(commit: str | None) -> str:
    """A commit's first ten digits; a mark such as "-dirty" stays."""
    digits, dash, mark = (commit or "unknown").partition("-")
    return digits[:_COMMIT_LENGTH] + dash + mark


def _threads(scenario: Scenario) -> str:
    return "" if scenario.num_threads is None else _counted(scenario.num_threads, "thread")


def _amount(scenario: Scenario) -> str:
    return f"{_counted(scenario.num_requests, 'prompt')} × {_counted(scenario.num_repeats, 'repeat')}"


def _counted(count: int | None, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _facet(names: str, values: Iterable[str], prefix: str = "") -> str:
    """The value that all scenarios share, or every value with how many scenarios have it."""
    counts = Counter(values)
    if len(counts) == 1:
        (value,) = counts
        return f"{prefix}{value}" if value else ""
    told = ", ".join(f"{value or 'unknown'} ({_counted(count, 'scenario')})" for value, count in counts.items())
    return f"{names} that differ: {told}"


def _models(measured: Sequence[Scenario]) -> str:
    sizes_by_models: dict[str, list[str]] = {}
    for size in SIZES:
        of_size = [scenario for scenario in measured if scenario.size == size]
        if of_size:
            targets = " and ".join(dict.fromkeys(_target(scenario) for scenario in of_size))
            drafts = " and ".join(dict.fromkeys(filter(None, map(_draft, of_size))))
            models = f"{targets}; draft: {drafts}." if drafts else f"{targets}."
            sizes_by_models.setdefault(models, []).append(size)
    if len(sizes_by_models) == 1:
        return f"Target: {next(iter(sizes_by_models))}"
    return " ".join(f"Target of {' and '.join(sizes)}: {models}" for models, sizes in sizes_by_models.items())


def _draft(scenario: Scenario) -> str | None:
    return scenario.draft_description or scenario.draft


def _target(scenario: Scenario) -> str:
    description = scenario.target_description or scenario.target
    num_parameters = scenario.target_num_parameters
    if num_parameters is None or "parameters" in description:
        return description
    return f"{description} ({parameters(num_parameters)} parameters)"


def parameters(count: int) -> str:
    """A number of parameters in three digits: 105M, 6.74B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
