"""Columns that every table of planned scenarios shares."""

from __future__ import annotations

from typing import Any

from data_parsing.plans.plan import PlannedScenario
from data_parsing.records.reading import Record
from data_parsing.tables.frames import COUNT, TEXT

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
    "prompt_set": TEXT,
    "decoding": TEXT,
    "expansion": TEXT,
    "tree_width": COUNT,
    "branching_step": COUNT,
    "selection": TEXT,
    "verifier": TEXT,
    "tree_layout": TEXT,
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
    "draft_description": TEXT,
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
        "prompt_set": planned.prompt_set or None,
        "decoding": planned.decoding or None,
        "experiment": planned.experiment,
        "detail": record.detail or None,
    } | _drafting_cells(planned)
    measurement = record.measurement
    if measurement is not None:
        provenance = measurement.provenance
        cells |= {
            "num_requests": len(measurement.requests) // measurement.num_repeats,
            "num_repeats": measurement.num_repeats,
            "device": provenance.device,
            "num_threads": provenance.num_threads,
            "dtype": provenance.dtype,
            "commit": provenance.commit,
            "target_description": provenance.target_description,
            "target_num_parameters": provenance.target_num_parameters,
            # Incremental decoding shares the process of those that draft.
            "draft_description": provenance.draft_description or None if planned.draft else None,
        }
    return cells


def _drafting_cells(planned: PlannedScenario) -> dict[str, Any]:
    """Blank where nothing is drafted: there a verifier has nothing to judge."""
    if not planned.drafts:
        return {}
    drafting = planned.drafting
    return {
        "expansion": ".".join(map(str, drafting.expansion)) or None,
        "tree_width": drafting.tree_width,
        "branching_step": drafting.branching_step,
        "selection": drafting.selection or None,
        "verifier": planned.verifier or None,
        "tree_layout": planned.tree_layout or None,
    }
