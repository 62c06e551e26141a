"""Table ``accepted_lengths``: how many speculated tokens each step accepted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from data_parsing.records.reading import Record
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import COUNT, NUMBER, frame
from data_parsing.tables.scenario_columns import IDENTITY, PROVENANCE, scenario_cells

SCHEMA = (
    IDENTITY | {"num_accepted": COUNT, "num_steps": COUNT, "share": NUMBER, "cumulative_share": NUMBER} | PROVENANCE
)


def accepted_lengths_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``accepted_lengths``: one row per scenario that drafts and length from 0 to the longest."""
    drafting = [record for record in records.records if record.planned.drafts]
    return {"accepted_lengths": frame([row for record in drafting for row in _rows(record)], SCHEMA)}


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    identity = scenario_cells(record)
    accepted = [] if record.measurement is None else list(chain(*record.measurement.requests["accepted_per_step"]))
    if not accepted:
        yield identity
        return
    num_steps = np.bincount(np.asarray(accepted, dtype=np.int64))
    shares = num_steps / len(accepted)
    for length, (steps, share, cumulative) in enumerate(zip(num_steps, shares, shares.cumsum(), strict=True)):
        yield identity | {
            "num_accepted": length,
            "num_steps": int(steps),
            "share": float(share),
            "cumulative_share": float(cumulative),
        }
