"""Columns that every table with one row per scenario shares."""

from __future__ import annotations

from typing import Any

from data_parsing.frames import COUNT, TEXT
from data_parsing.records import Record

IDENTITY = {
    "scenario": TEXT,
    "size": TEXT,
    "purpose": TEXT,
    "mode": TEXT,
    "batch_size": COUNT,
    "status": TEXT,
    "target": TEXT,
    "draft": TEXT,
    "offload": TEXT,
    "quantisation": TEXT,
    "num_requests": COUNT,
    "num_repeats": COUNT,
}
PROVENANCE = {
    "device": TEXT,
    "num_threads": COUNT,
    "dtype": TEXT,
    "commit": TEXT,
    "target_description": TEXT,
    "target_num_parameters": COUNT,
    "experiment": TEXT,
    "detail": TEXT,
}


def scenario_cells(record: Record) -> dict[str, Any]:
    """The cells of IDENTITY and PROVENANCE; what only a measurement knows stays blank without one."""
    planned = record.planned
    cells: dict[str, Any] = {
        "scenario": planned.scenario,
        "size": planned.size,
        "purpose": planned.purpose,
        "mode": planned.mode,
        "batch_size": planned.batch_size,
        "status": record.status.value,
        "target": planned.target,
        "draft": planned.draft or None,
        "offload": planned.offload or None,
        "quantisation": planned.quantisation or None,
        "experiment": planned.experiment,
        "detail": record.detail or None,
    }
    measurement = record.measurement
    if measurement is not None:
        provenance = measurement.provenance
        cells |= {
            "num_requests": len(measurement.requests) // measurement.requests["repeat"].nunique(),
            "num_repeats": measurement.requests["repeat"].nunique(),
            "device": provenance.device,
            "num_threads": provenance.num_threads,
            "dtype": provenance.dtype,
            "commit": provenance.commit,
            "target_description": provenance.target_description,
            "target_num_parameters": provenance.target_num_parameters,
        }
    return cells
