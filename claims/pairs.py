"""Scenarios that are compared: pairs that agree in everything but what the claim is about, and their averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from claims.bootstrap import Array, Averages, averages, samples
from claims.errors import ClaimError
from claims.measures import OfRequests, Where
from claims.tables import Tables, described

Key = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """The rows, by their index, of two scenarios with the same ``key`` in the columns of ``pair_by``."""

    key: Key
    top: int
    bottom: int


@dataclass(frozen=True)
class Averaged:
    """The averages of scenarios by their names, and the scenarios that have none."""

    averages: Averages
    places: Mapping[str, int]
    lacking: tuple[str, ...]

    def values(self, scenarios: Sequence[str]) -> Array:
        """Their averages [S]."""
        return self.averages.values_S[[self.places[scenario] for scenario in scenarios]]

    def draws(self, scenarios: Sequence[str]) -> Array:
        """Their draws [D, S]."""
        return self.averages.draws_DS[:, [self.places[scenario] for scenario in scenarios]]

    def num_prompts(self, scenarios: Sequence[str]) -> int:
        """Prompts of each, summed."""
        return int(self.averages.num_prompts_S[[self.places[scenario] for scenario in scenarios]].sum())


def pairs(
    tables: Tables, table: str, rows: pd.DataFrame, pair_by: Sequence[str], numerator: Where, denominator: Where
) -> list[Pair]:
    """Every pair of which both are among the rows."""
    tops, bottoms = (_by_key(tables, table, rows, pair_by, side) for side in (numerator, denominator))
    return [Pair(key, tops[key], bottoms[key]) for key in tops if key in bottoms]


def averaged(tables: Tables, measure: OfRequests, rows: pd.DataFrame) -> Averaged:
    """The averages of the scenarios of the rows."""
    requests = tables.table("requests")
    columns = ["repeat", "prompt_index", measure.value.column, *filter(None, [measure.value.weight])]
    chosen = requests[requests["scenario"].isin(rows["scenario"])]
    numbers = pd.DataFrame({column: tables.numbers("requests", chosen, column) for column in columns})
    prompt_sets = dict(zip(rows["scenario"], rows["prompt_set"], strict=True))
    found = samples(numbers.assign(scenario=chosen["scenario"]), prompt_sets, measure.value)
    result = averages(list(found.values()), measure.value)
    has_average = dict(zip(found, result.num_prompts_S > 0, strict=True))
    places = {scenario: place for place, scenario in enumerate(found) if has_average[scenario]}
    return Averaged(result, places, tuple(scenario for scenario in prompt_sets if scenario not in places))


def keys(rows: pd.DataFrame, pair_by: Sequence[str]) -> list[Key]:
    """A row's cells in the columns of ``pair_by``, row by row."""
    if unknown := [column for column in pair_by if column not in rows]:
        raise ClaimError(f"pair_by: no columns {', '.join(unknown)}; there are {', '.join(rows)}")
    return list(zip(*(rows[column] for column in pair_by), strict=True))


def _by_key(tables: Tables, table: str, rows: pd.DataFrame, pair_by: Sequence[str], side: Where) -> dict[Key, int]:
    chosen = tables.selected(table, rows, side)
    found: dict[Key, int] = {}
    for key, row in zip(keys(chosen, pair_by), chosen.index, strict=True):
        if key in found:
            raise ClaimError(
                f"{table}: two rows with {described(side)} and {dict(zip(pair_by, key, strict=True))}; "
                "fix: name what tells them apart in the claim's where or pair_by"
            )
        found[key] = row
    return found
