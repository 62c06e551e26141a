"""The CSV tables of parsing, every cell as its text; a blank is what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from claims.errors import ClaimError
from claims.measures import Cell, Where

OK = "ok"
FUNCTIONAL = "functional"
_LONG_TABLE = {"scenario", "status", "purpose", "experiment", "mode", "decoding", "median_per_token_latency_ms"}
"""Columns by which the tables of experiments, one row per planned scenario, are told from all others."""
_FROM_RECORDS = ("dtype", "device")
"""Columns that only a record fills: without one, a row may still turn out to be asked for."""


class Tables:
    """A folder of tables, each read once."""

    def __init__(self, csv_dir: Path) -> None:
        self._csv_dir = csv_dir
        self._read: dict[str, pd.DataFrame] = {}
        self._scenarios: pd.DataFrame | None = None

    def has(self, name: str) -> bool:
        """Whether there is such a table; those of experiments that are not configured are not there."""
        return self._path(name).is_file()

    @property
    def names(self) -> list[str]:
        """Of the tables there are."""
        return sorted(path.stem for path in self._csv_dir.glob("*.csv"))

    def table(self, name: str) -> pd.DataFrame:
        """A table as it is."""
        if name not in self._read:
            path = self._path(name)
            if not path.is_file():
                raise ClaimError(f"{path}: no such table; it is written by python -m data_parsing")
            try:
                self._read[name] = pd.read_csv(path, dtype=str, keep_default_na=False)
            except (OSError, ValueError) as error:
                raise ClaimError(f"{path}: table cannot be read: {error}") from error
        return self._read[name]

    def rows(self, name: str) -> pd.DataFrame:
        """A table; where its rows name scenarios, with every column that is known of these."""
        table = self.table(name)
        if "scenario" not in table:
            return table
        scenarios = self._all_scenarios()
        if unknown := sorted(set(table["scenario"]) - set(scenarios["scenario"])):
            raise ClaimError(f"{self._path(name)}: scenarios of no experiment's table: {', '.join(unknown[:3])}")
        more = ["scenario", *(column for column in scenarios if column not in table)]
        return table.merge(scenarios[more], on="scenario", how="left", validate="many_to_one")

    def numbers(self, name: str, rows: pd.DataFrame, column: str) -> pd.Series:
        """A column of rows of a table as numbers, NaN where blank."""
        _require(rows, [column], str(self._path(name)))
        try:
            numbers = pd.to_numeric(rows[column].where(rows[column] != "")).astype("float64")
        except ValueError as error:
            raise ClaimError(f"{self._path(name)}: {column} is not a number: {error}") from error
        if np.isinf(numbers).any():
            raise ClaimError(f"{self._path(name)}: {column} is not a number: it is infinite")
        return numbers

    def selected(self, name: str, rows: pd.DataFrame, where: Where, where_not: Where | None = None) -> pd.DataFrame:
        """The rows that match all of ``where`` and nothing of ``where_not``."""
        _require(rows, [*where, *(where_not or {})], str(self._path(name)))
        chosen = pd.Series(data=True, index=rows.index)
        for column, allowed in where.items():
            matches = rows[column].map(lambda cell, allowed=allowed: _is_one_of(cell, allowed))
            if column in _FROM_RECORDS and "status" in rows:
                matches |= (rows[column] == "") & (rows["status"] != OK)
            chosen &= matches.astype(bool)
        for column, refused in (where_not or {}).items():
            chosen &= ~rows[column].map(lambda cell, refused=refused: _is_one_of(cell, refused)).astype(bool)
        return rows[chosen]

    def _all_scenarios(self) -> pd.DataFrame:
        if self._scenarios is None:
            names = [path.stem for path in sorted(self._csv_dir.glob("*.csv")) if set(_header(path)) >= _LONG_TABLE]
            if not names:
                raise ClaimError(f"{self._csv_dir}: no table of an experiment; python -m data_parsing writes them")
            scenarios = pd.concat([self.table(name) for name in names], ignore_index=True).fillna("")
            self._scenarios = scenarios.drop_duplicates("scenario")
        return self._scenarios

    def _path(self, name: str) -> Path:
        return self._csv_dir / f"{name}.csv"


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().strip().split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise ClaimError(f"{path}: table cannot be read: {error}") from error


def _require(rows: pd.DataFrame, columns: list[str], where: str) -> None:
    if unknown := [column for column in columns if column not in rows]:
        raise ClaimError(f"{where}: columns are missing: {', '.join(unknown)}; there are {', '.join(rows)}")


def _is_one_of(cell: str, allowed: Cell | tuple[Cell, ...]) -> bool:
    return any(_is(cell, value) for value in (allowed if isinstance(allowed, tuple) else (allowed,)))


def _is(cell: str, value: Cell) -> bool:
    if value is None:
        return cell == ""
    if isinstance(value, bool):
        return cell.lower() == str(value).lower()
    if isinstance(value, str):
        return cell == value
    try:
        return float(cell) == value
    except ValueError:
        return False


def described(where: Mapping[str, Cell | tuple[Cell, ...]]) -> str:
    """A selection in words."""
    return ", ".join(f"{column} {_text(value)}" for column, value in where.items()) or "any"


def _text(value: Cell | tuple[Cell, ...]) -> str:
    if isinstance(value, tuple):
        return " or ".join(map(_text, value))
    return "blank" if value is None else str(value)
