"""The registry of tables: what ``python -m data_parsing`` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from data_parsing.errors import ParsingError
from data_parsing.records.record_set import RecordSet
from data_parsing.tables import accepted_lengths, predictions, request_table, time_split, token_equality, verify_costs
from data_parsing.tables.acceptance import ACCEPTANCE_SCHEMA, SUCCESS_SCHEMA, acceptance_table, success_rates_table
from data_parsing.tables.artifact_tables import artifact_tables
from data_parsing.tables.experiments import experiment_tables
from data_parsing.tables.frames import Schema, write_csv

TableBuilder = Callable[[RecordSet], dict[str, pd.DataFrame]]
"""From the records of all planned scenarios to tables by name; a name becomes ``<name>.csv``."""

FIXED_SCHEMAS: dict[str, Schema] = {
    "time_split": time_split.SCHEMA,
    "token_equality": token_equality.SCHEMA,
    "requests": request_table.SCHEMA,
    "acceptance": ACCEPTANCE_SCHEMA,
    "success_rates": SUCCESS_SCHEMA,
    "accepted_lengths": accepted_lengths.SCHEMA,
    "verify_costs": verify_costs.SCHEMA,
    "predictions": predictions.SCHEMA,
}
"""The tables that every plan has."""

TABLE_BUILDERS: tuple[TableBuilder, ...] = (
    artifact_tables,
    experiment_tables,
    time_split.time_split_table,
    token_equality.token_equality_table,
    request_table.request_table,
    acceptance_table,
    success_rates_table,
    accepted_lengths.accepted_lengths_table,
    verify_costs.verify_costs_table,
    predictions.predictions_table,
)


def build_tables(records: RecordSet) -> dict[str, pd.DataFrame]:
    """Every table by name; a plan whose table has the name of another is a ParsingError."""
    tables: dict[str, pd.DataFrame] = {}
    for build in TABLE_BUILDERS:
        built = build(records)
        if doubled := sorted(tables.keys() & built.keys()):
            raise ParsingError(f"two tables are named {doubled[0]!r}: an experiment's prefix must be another word")
        tables |= built
    return tables


def write_tables(tables: dict[str, pd.DataFrame], output_dir: Path) -> list[Path]:
    """Write the tables as ``<name>.csv``; returns the paths in order."""
    paths = [output_dir / f"{name}.csv" for name in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        write_csv(table, path)
    return paths
