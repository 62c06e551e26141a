"""Tables ``server_<size>`` and ``offloading_<size>``: columns and formula of the artifact's parsers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from data_parsing.plans.plan import ARTIFACT_MODES, FAMILIES, SIZES
from data_parsing.records.reading import Record
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.experiments import artifact_per_token_latency_ms
from data_parsing.tables.frames import COUNT, NUMBER, frame

COLUMNS = {
    "server": {mode: f"{name}_per_token_latency_ms" for mode, name in ARTIFACT_MODES.items()},
    # Its offloading script measures nothing else.
    "offloading": {"sequence": "per_token_latency_ms"},
}
"""By family and mode, where the artifact's tables have its latency."""

SCHEMAS = {
    family: {"batch_size": COUNT} | dict.fromkeys(columns.values(), NUMBER) for family, columns in COLUMNS.items()
}


def artifact_tables(records: RecordSet) -> dict[str, pd.DataFrame]:
    """One table per family and planned size: a row per batch size, a column per mode, blank where no time counts."""
    tables = {}
    for family in FAMILIES:
        for size in SIZES:
            own = [r for r in records.records if r.planned.table == family and r.planned.is_artifacts_placement]
            of_size = [record for record in own if record.planned.size == size]
            batch_sizes = sorted({record.planned.batch_size for record in of_size})
            if of_size:
                rows = [_row(of_size, family, batch_size) for batch_size in batch_sizes]
                tables[f"{family}_{size}"] = frame(rows, SCHEMAS[family])
    return tables


def _row(records: Sequence[Record], family: str, batch_size: int) -> dict[str, float | None]:
    row: dict[str, float | None] = {"batch_size": batch_size}
    for mode, column in COLUMNS[family].items():
        row[column] = _cell([r for r in records if (r.planned.batch_size, r.planned.mode) == (batch_size, mode)])
    return row


def _cell(found: Sequence[Record]) -> float | None:
    # Settings beyond the artifact's have tables of their own; here they would be taken for the artifact's.
    plain = [record for record in found if not record.planned.settings]
    chosen = plain or (found if len(found) == 1 else [])
    # The artifact's columns cannot say that a time is the scheduler's.
    if not chosen or chosen[0].measurement is None or chosen[0].planned.is_functional:
        return None
    return artifact_per_token_latency_ms(chosen[0].measurement.requests["latency_us"])
