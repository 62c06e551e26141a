"""The dictionary in data_parsing/README.md defines every column of every table, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_parsing.tables import artifact_tables, experiments
from data_parsing.tables.registry import FIXED_SCHEMAS
from data_parsing.tables.scenario_columns import IDENTITY, PROVENANCE
from rules.table_names import SHARED_TABLES
from tests.data_parsing.built_tables import FIXED

README = Path(__file__).parents[2] / "data_parsing" / "README.md"
_LINE = re.compile(r"^\| (`[^|]+) \| ([^|]*) ?\| ([^|]+) \|$", re.MULTILINE)
SHARED = {*IDENTITY, *PROVENANCE}


def defined() -> dict[str, list[str]]:
    """Section -> the columns that it defines."""
    sections = {}
    for section in README.read_text(encoding="utf-8").split("\n### ")[1:]:
        title = re.split(r"[:\n]", section, maxsplit=1)[0]
        lines = _LINE.findall(section.split("\n## ")[0])
        assert all(definition.strip() for _, _, definition in lines)
        sections[title] = [column for names, _, _ in lines for column in re.findall(r"`(\w+)`", names)]
    return sections


def test_the_columns_of_all_tables_of_scenarios() -> None:
    sections = defined()
    assert sections["Identity"] == list(IDENTITY)
    assert sections["Provenance"] == list(PROVENANCE)


@pytest.mark.parametrize("table", [*FIXED_SCHEMAS, "Long tables"])
def test_every_column_of_a_table_is_defined_once(table: str) -> None:
    schema = FIXED_SCHEMAS.get(table, experiments.SCHEMA)
    columns = schema.keys() - SHARED if schema.keys() >= SHARED else schema.keys()
    assert sorted(defined()[table]) == sorted(columns)


def test_the_artifacts_columns() -> None:
    columns = {column for schema in artifact_tables.SCHEMAS.values() for column in schema}
    assert set(defined()["The artifact's tables"]) == columns


def test_the_fixed_tables_are_those_of_the_tests_and_the_workflow() -> None:
    assert tuple(FIXED_SCHEMAS) == FIXED
    assert (*FIXED, "losslessness") == SHARED_TABLES  # which is made of the audit, not of records
