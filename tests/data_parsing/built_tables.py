"""Builds the tables of synthetic records in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_parsing.plans.plan import load_plans
from data_parsing.records.reading import read_records
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.registry import build_tables
from tests.data_parsing.record_files import SyntheticScenario, write_plans

FIXED = (
    *("time_split", "token_equality", "requests", "acceptance", "success_rates"),
    *("accepted_lengths", "verify_costs", "predictions"),
)
"""The tables that every plan has."""


def tables_of(
    tmp_path: Path, scenarios: Sequence[SyntheticScenario], tables: Sequence[str] = ("server",)
) -> dict[str, pd.DataFrame]:
    """The tables of a plan of the scenarios over what lies in ``raw``."""
    plan = load_plans(write_plans(tmp_path / "plan", scenarios, tables))
    return build_tables(RecordSet(plan.tables, read_records(tmp_path / "raw", plan.scenarios)))


def rows_of(table: pd.DataFrame, scenario: SyntheticScenario) -> pd.DataFrame:
    """The rows of a scenario."""
    return table[table["scenario"] == scenario.name].reset_index(drop=True)


def row_of(table: pd.DataFrame, scenario: SyntheticScenario) -> pd.Series:
    """The one row of a scenario."""
    rows = rows_of(table, scenario)
    assert len(rows) == 1
    return rows.loc[0]


def write_all(tmp_path: Path, scenarios: Sequence[SyntheticScenario]) -> None:
    """Write the records of the scenarios into ``raw``."""
    for scenario in scenarios:
        scenario.write(tmp_path / "raw")
