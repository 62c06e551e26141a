"""Table ``time_split``: where the time of the steps goes, per scenario."""

from __future__ import annotations

from typing import Any

import pandas as pd

from data_parsing.plans.plan import PEERS
from data_parsing.records.reading import Measurement, Record
from data_parsing.records.record_parts import STEP_PARTS
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import COUNT, NUMBER, frame
from data_parsing.tables.scenario_columns import IDENTITY, PROVENANCE, scenario_cells

SCHEMA = (
    IDENTITY
    | {f"{part}_share": NUMBER for part in STEP_PARTS}
    | {"step_time_ms": NUMBER, "num_target_steps": COUNT}
    | PROVENANCE
)


def time_split_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``time_split``: shares of each part in the time of all steps of all repeats; they sum to 1.

    Peers have no row: what their steps spend their time on is not known.
    """
    ours = [record for record in records.records if record.planned.mode not in PEERS]
    return {"time_split": frame([_row(record) for record in ours], SCHEMA)}


def _row(record: Record) -> dict[str, Any]:
    measurement = record.measurement
    return scenario_cells(record) | ({} if measurement is None else _split_cells(measurement))


def _split_cells(measurement: Measurement) -> dict[str, float | int]:
    part_us = {part: sum(repeat.part_us[part] for repeat in measurement.repeats) for part in STEP_PARTS}
    num_steps = sum(repeat.num_target_steps for repeat in measurement.repeats)
    total_us = sum(part_us.values())
    cells: dict[str, float | int] = {"num_target_steps": num_steps}
    if total_us > 0:
        cells |= {f"{part}_share": time_us / total_us for part, time_us in part_us.items()}
    if num_steps > 0:
        cells["step_time_ms"] = sum(repeat.wall_us for repeat in measurement.repeats) / num_steps / 1000
    return cells
