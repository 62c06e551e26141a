"""Reader of CSV files: cells by column, with errors that name file, line and column; a blank cell is None."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures.errors import FigureError


@dataclass(frozen=True)
class Measured:
    """A value with the ends of its interval; the unit is the column's."""

    value: float
    low: float
    high: float

    @property
    def top(self) -> float:
        """The upper end of what is drawn."""
        return max(self.value, self.high)


class Cells:
    """The cells of one line."""

    def __init__(self, cells: dict[str, str], where: str) -> None:
        self._cells = cells
        self._where = where

    def text(self, column: str) -> str | None:
        """A text; None if blank."""
        return self._cells[column] or None

    def required(self, column: str, allowed: Sequence[str] = ()) -> str:
        """A text that must be there, and be one of the allowed ones where some are named."""
        value = self._cells[column]
        if not value or (allowed and value not in allowed):
            raise FigureError(f"{self._where}: {column} is {value!r}, allowed: {', '.join(allowed) or 'any text'}")
        return value

    def number(self, column: str) -> float | None:
        """A finite number; None if blank."""
        value = self._cells[column]
        try:
            number = float(value) if value else None
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise FigureError(f"{self._where}: {column} is not a number: {value!r}")
        return number

    def required_number(self, column: str) -> float:
        """A finite number that must be there."""
        number = self.number(column)
        if number is None:
            raise FigureError(f"{self._where}: {column} is blank")
        return number

    def count(self, column: str) -> int | None:
        """A whole number; None if blank."""
        number = self.number(column)
        return None if number is None else int(number)

    def required_count(self, column: str) -> int:
        """A whole number that must be there."""
        return int(self.required_number(column))

    def measured(self, value: str, low: str, high: str) -> Measured | None:
        """A value and its interval from three columns; None unless all are there."""
        numbers = [self.number(column) for column in (value, low, high)]
        found = [number for number in numbers if number is not None]
        return Measured(*found) if len(found) == len(numbers) else None


def read_cells(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Cells]:
    """The lines of a table that has these columns; optional ones are blank where it lacks them.

    Raises FigureError if the table is not there, cannot be read or lacks a column.
    """
    blank = dict.fromkeys(optional, "")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise FigureError(f"{path}: columns are missing: {', '.join(missing)}")
            return [Cells(blank | cells, f"{path}:{reader.line_num}") for cells in reader]
    except FileNotFoundError:
        raise FigureError(f"{path}: no such table; it is written by python -m data_parsing") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FigureError(f"{path}: table cannot be read: {error}") from error
