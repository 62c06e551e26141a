"""From claims and tables to verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

import pandas as pd

from claims.claim import Claim, ClaimSet, Part
from claims.errors import ClaimError
from claims.measures import Measure
from claims.rules import Finding, finding
from claims.setting import Platform, are_models, band_applies, cells_of, is_hardware, synthetic
from claims.statistics import STATISTICS, Measured
from claims.tables import FUNCTIONAL, OK, Tables, described

MIN_PROMPTS = 5  # fewer do not tell how prompts differ: an interval from them is too narrow
_NUM_NAMED = 3
_ALIKE = 0.8  # of two names of tables, for one to be a slip of the pen of the other
_CONDITIONS = ("device", "num_threads", "dtype")


class Verdict(StrEnum):
    """What there is to say of a claim."""

    REPRODUCED = "REPRODUCED"
    NOT_REPRODUCED = "NOT REPRODUCED"
    NOT_TESTABLE = "NOT TESTABLE HERE"


@dataclass(frozen=True)
class Judged:
    """A part of a claim with its verdict."""

    part: Part
    measured: Measured
    verdict: Verdict
    why: tuple[str, ...]
    absent: tuple[str, ...] = ()
    """What of ``why`` says what this part lacks: another part may lack as much, and yet something else."""


@dataclass(frozen=True)
class Place:
    """What every claim is judged with."""

    claims: ClaimSet
    tables: Tables
    platform: Platform
    run_command: str
    """How records are made, ``{target}`` standing for the target."""


@dataclass(frozen=True)
class _Evidence:
    """The rows of a measure: those that should be there, and those with a record."""

    planned: pd.DataFrame
    rows: pd.DataFrame
    num_functional: int

    @property
    def missing(self) -> pd.DataFrame:
        """Planned scenarios without a record that counts."""
        return self.planned[self.planned["status"] != OK] if "status" in self.planned else self.planned.iloc[:0]


def judged_parts(claim: Claim, place: Place) -> list[Judged]:
    """Every part of a claim with its verdict. Raises ClaimError naming the claim."""
    try:
        return [_judged(claim, part, place) for part in claim.parts]
    except ClaimError as error:
        raise ClaimError(f"{claim.id}: {error}") from error


def together(parts: Sequence[Judged]) -> Verdict:
    """A claim holds if all its parts do; one that does not hold decides."""
    for verdict in (Verdict.NOT_REPRODUCED, Verdict.NOT_TESTABLE):
        if any(part.verdict is verdict for part in parts):
            return verdict
    return Verdict.REPRODUCED


def _judged(claim: Claim, part: Part, place: Place) -> Judged:
    for name in filter(None, (part.measure.table, part.measure.planned)):
        if not place.tables.has(name):
            alike = get_close_matches(name, place.tables.names, n=1, cutoff=_ALIKE)
            told = f"no table {name}: nothing here is planned for it"
            return Judged(part, Measured(), Verdict.NOT_TESTABLE, (told, *(f"is {it} meant?" for it in alike)))
    evidence = _evidence(part.measure, place.tables)
    measured = STATISTICS[part.measure.statistic](place.tables, part.measure, evidence.rows)
    on_hardware = is_hardware(place.claims.paper_hardware, place.platform, evidence.rows)
    applies = band_applies(part.rule, on_hardware, are_models(place.claims.paper_models, evidence.rows))
    found = finding(part, measured, band_applies=applies) if measured.estimate else None
    unfit = list(_unfit(claim, part, place, evidence, on_hardware=on_hardware, applies=applies))
    absent = tuple(_absent(part.measure, place, evidence, measured))
    # Of what is to be equal one counterexample is enough, whatever is still missing.
    is_decisive = found is not None and part.rule.type == "equal" and not found.holds
    if found is not None and not unfit and (not absent or is_decisive):
        verdict = Verdict.REPRODUCED if found.holds else Verdict.NOT_REPRODUCED
        return Judged(part, measured, verdict, (found.why, *filter(None, [found.of_range]), *absent), absent)
    why = (*unfit, *absent, *_as_far(found, part, evidence, measured))
    return Judged(part, measured, Verdict.NOT_TESTABLE, why, absent)


def _evidence(measure: Measure, tables: Tables) -> _Evidence:
    table = tables.rows(measure.table)
    rows = tables.selected(measure.table, table, measure.where, measure.where_not)
    rows = rows[_matches_any(tables, measure, rows)]
    planned = rows
    if measure.planned is not None:
        planned = tables.selected(measure.planned, tables.rows(measure.planned), measure.where, measure.where_not)
    num_functional = 0
    if measure.is_time:
        num_functional = int((planned["purpose"] == FUNCTIONAL).sum())
        rows, planned = (frame[frame["purpose"] != FUNCTIONAL] for frame in (rows, planned))
    return _Evidence(planned, rows[rows["status"] == OK] if "status" in rows else rows, num_functional)


def _matches_any(tables: Tables, measure: Measure, rows: pd.DataFrame) -> pd.Series:
    chosen = pd.Series(data=False, index=rows.index)
    for where in measure.alternatives:
        chosen[tables.selected(measure.table, rows, where).index] = True
    return chosen


def _unfit(
    claim: Claim, part: Part, place: Place, evidence: _Evidence, *, on_hardware: bool, applies: bool
) -> Iterator[str]:
    """What on this platform can never be judged."""
    if claim.kind == "hardware" and not on_hardware:
        platform = place.platform
        devices = ", ".join(cells_of(evidence.rows, "device")) or platform.device
        here = f"{platform.num_nodes} x {platform.devices_per_node} {devices}"
        yield f"hardware: the paper's is {place.claims.paper_hardware.description}, here {here}"
    if made_up := _made_up(part, evidence):
        yield f"how often draft and target agree was chosen, not trained: {', '.join(made_up)}"
    if part.rule.type == "band" and not applies:
        yield "the published range is of other models or hardware"
    if evidence.planned.empty and evidence.num_functional:
        yield "only functional placements, whose times are the scheduler's"


def _absent(measure: Measure, place: Place, evidence: _Evidence, measured: Measured) -> Iterator[str]:
    """What is not there yet, and the command that makes it."""
    lacking = [name for name in measured.lacking if name not in set(evidence.missing.get("scenario", ()))]
    names = [*evidence.missing.get("scenario", ()), *lacking]
    if evidence.planned.empty:
        if not evidence.num_functional:
            run = f": {place.run_command.format(target=measure.target)}" if measure.target else ""
            yield f"nothing in table {measure.planned or measure.table} with {described(measure.where)}{run}"
    elif unmatched := list(_unmatched(measure, place.tables)):
        yield from unmatched
    elif names:
        named = ""
        if len(names) < len(evidence.planned):
            named = f" ({', '.join(names[:_NUM_NAMED])}{', ...' if len(names) > _NUM_NAMED else ''})"
        without = evidence.planned[evidence.planned["scenario"].isin(names)]
        commands = [place.run_command.format(target=f"{name}_experiments") for name in cells_of(without, "experiment")]
        yield f"{len(names)} of {len(evidence.planned)} records missing{named}: {'; '.join(commands)}"
    elif measured.estimate is None:
        yield "nothing to compare with"
    if measured.estimate and _has_too_few_prompts(measured):
        yield f"{measured.num_prompts} prompts, at least {MIN_PROMPTS} needed for an interval"
    if measure.is_time:
        for column in _CONDITIONS:
            if len(different := cells_of(evidence.rows, column)) > 1:
                yield f"records of different {column}: {', '.join(different)}"


def _unmatched(measure: Measure, tables: Tables) -> Iterator[str]:
    """Sides of a comparison of which no row is there, beside what the columns that they ask for do hold."""
    table = tables.rows(measure.table)
    rows = tables.selected(measure.table, table, measure.where, measure.where_not)
    for side in measure.alternatives:
        if len(rows) and tables.selected(measure.table, rows, side).empty:
            held = "; ".join(f"{column}: {', '.join(cells_of(rows, column)) or 'all blank'}" for column in side)
            yield f"nothing in table {measure.table} with {described(side)}; there are {held}"


def _as_far(found: Finding | None, part: Part, evidence: _Evidence, measured: Measured) -> list[str]:
    """What the rule says of what was measured all the same, unless that says nothing."""
    if found is None or _has_too_few_prompts(measured) or _made_up(part, evidence):
        return []
    return [f"as far as measured, it {'holds' if found.holds else 'does not hold'}: {found.why}"]


def _has_too_few_prompts(measured: Measured) -> bool:
    return measured.num_prompts is not None and measured.num_prompts < MIN_PROMPTS


def _made_up(part: Part, evidence: _Evidence) -> list[str]:
    """The models whose weights are made up, where the rule needs trained ones."""
    return synthetic(evidence.rows) if part.rule.weights == "trained" else []
