"""Table ``verify_costs``: what a pass costs by its number of rows, t(n), on every placement that measured it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from data_parsing.records.reading import Record
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import COUNT, NUMBER, TEXT, frame

SCHEMA = {
    "placement": TEXT,
    "target": TEXT,
    "size": TEXT,
    "offload": TEXT,
    "quantisation": TEXT,
    "device": TEXT,
    "num_threads": COUNT,
    "target_description": TEXT,
    "part": TEXT,
    "rows": COUNT,
    "time_ms": NUMBER,
    "ratio": NUMBER,
}


def verify_costs_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``verify_costs``: for each placement the curve of its target and of its first draft model's levels."""
    return {"verify_costs": frame([row for r in records.placements.values() for row in _rows(r)], SCHEMA)}


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    planned, measurement = record.planned, record.measurement
    assert measurement is not None and measurement.costs, "placements without costs are left out"
    costs = measurement.costs[min(measurement.costs)]
    for part, curve in (("target", costs.target), ("draft_level", costs.draft_level)):
        for num_rows, time_ms in zip(curve.rows, curve.ms, strict=True):
            yield {
                "placement": planned.placement,
                "target": planned.target,
                "size": planned.size,
                "offload": planned.offload or None,
                "quantisation": planned.quantisation or None,
                "device": measurement.provenance.device,
                "num_threads": measurement.provenance.num_threads,
                "target_description": measurement.provenance.target_description,
                "part": part,
                "rows": num_rows,
                "time_ms": time_ms,
                "ratio": time_ms / curve.ms[0],
            }
