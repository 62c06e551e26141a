"""The CSV tables of a results folder, as texts."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from report.errors import ReportError


@dataclass(frozen=True)
class Table:
    """One CSV file; every row has as many cells as there are columns, "" for what is not known."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def records(self) -> Iterator[Mapping[str, str]]:
        """Its rows by column."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def blank_columns(self) -> list[str]:
        """Columns without a single value, where there are rows at all."""
        if not self.rows:
            return []
        return [column for place, column in enumerate(self.columns) if not any(row[place] for row in self.rows)]

    def without(self, columns: Sequence[str]) -> Table:
        """The other columns."""
        places = [place for place, column in enumerate(self.columns) if column not in columns]
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return Table(self.name, tuple(self.columns[place] for place in places), rows)


def read_table(path: Path) -> Table:
    """One table. Raises ReportError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"{path}: table cannot be read: {error}") from error
    columns = tuple(lines[0]) if lines else ()
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise ReportError(f"{path}:{number}: {len(line)} cells under {len(columns)} columns")
    return Table(path.stem, columns, tuple(map(tuple, lines[1:])))


def read_tables(csv_dir: Path) -> tuple[Table, ...]:
    """Every table of a folder by name; none where there is no folder."""
    return tuple(read_table(path) for path in sorted(csv_dir.glob("*.csv")))
