"""The registry of tables: what ``python -m data_parsing`` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from data_parsing.artifact_tables import artifact_tables
from data_parsing.experiments import experiment_tables
from data_parsing.frames import write_csv
from data_parsing.records import Record
from data_parsing.time_split import time_split_table
from data_parsing.token_equality import token_equality_table

TableBuilder = Callable[[Sequence[Record]], dict[str, pd.DataFrame]]
"""From the records of all planned scenarios to tables by name; a name becomes ``<name>.csv``."""

TABLE_BUILDERS: tuple[TableBuilder, ...] = (
    artifact_tables,
    experiment_tables,
    time_split_table,
    token_equality_table,
)


def build_tables(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """Every table by name."""
    tables: dict[str, pd.DataFrame] = {}
    for build in TABLE_BUILDERS:
        tables |= build(records)
    return tables


def write_tables(tables: dict[str, pd.DataFrame], output_dir: Path) -> list[Path]:
    """Write the tables as ``<name>.csv``; returns the paths in order."""
    paths = [output_dir / f"{name}.csv" for name in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        write_csv(table, path)
    return paths
