"""Tables in memory and on disk: typed columns, blanks for what is not known, files replaced as a whole."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data_parsing.errors import ParsingError

TEXT = "string"
COUNT = "Int64"  # pandas' integer that may be blank; a plain integer column would turn into floats
NUMBER = "float64"

Schema = Mapping[str, str]
"""Column -> TEXT, COUNT or NUMBER, in the order of the file."""


def frame(rows: Iterable[Mapping[str, Any]], schema: Schema) -> pd.DataFrame:
    """A table with exactly the schema's columns; a key that a row lacks is a blank."""
    columns: dict[str, list[Any]] = {column: [] for column in schema}
    for row in rows:
        assert set(row) <= set(schema), f"columns without a schema: {set(row) - set(schema)}"
        for column, cells in columns.items():
            cells.append(row.get(column))
    return pd.DataFrame({column: pd.Series(cells, dtype=schema[column]) for column, cells in columns.items()})


def typed(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The schema's columns of a table, in its order and types, rows numbered anew."""
    return table[list(schema)].reset_index(drop=True).astype(dict(schema))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with six significant digits; readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        # Renamed even if the content is the same: Snakemake compares modification times.
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ParsingError(f"{path}: table cannot be written: {error.strerror or error}") from error
