"""Tables ``server_small``, ``server_medium`` and ``server_large``: columns and formula of the artifact's parser."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from data_parsing.frames import COUNT, NUMBER, frame
from data_parsing.plan import ARTIFACT_MODES, SIZES
from data_parsing.records import Record
from data_parsing.server import artifact_per_token_latency_ms, is_server

SCHEMA = {"batch_size": COUNT} | {f"{name}_per_token_latency_ms": NUMBER for name in ARTIFACT_MODES.values()}


def artifact_server_tables(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """One table per planned size: a row per batch size, a column per mode, blank where no time counts."""
    tables = {}
    for size in SIZES:
        of_size = [record for record in records if is_server(record) and record.planned.size == size]
        if not of_size:
            continue
        batch_sizes = sorted({record.planned.batch_size for record in of_size})
        tables[f"server_{size}"] = frame([_row(of_size, batch_size) for batch_size in batch_sizes], SCHEMA)
    return tables


def _row(records: Sequence[Record], batch_size: int) -> dict[str, float | None]:
    row: dict[str, float | None] = {"batch_size": batch_size}
    for mode, name in ARTIFACT_MODES.items():
        row[f"{name}_per_token_latency_ms"] = _cell(records, batch_size, mode)
    return row


def _cell(records: Sequence[Record], batch_size: int, mode: str) -> float | None:
    found = [r for r in records if (r.planned.batch_size, r.planned.mode) == (batch_size, mode)]
    # Settings beyond the artifact's have tables of their own; here they would be taken for the artifact's.
    plain = [record for record in found if not record.planned.variant]
    chosen = plain or (found if len(found) == 1 else [])
    # The artifact's columns cannot say that a time is the scheduler's.
    if not chosen or chosen[0].measurement is None or chosen[0].planned.is_functional:
        return None
    return artifact_per_token_latency_ms(chosen[0].measurement.requests["latency_us"])
