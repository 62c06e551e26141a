"""Table ``predictions``: what acceptance and costs measured elsewhere make of a tree, beside what it really brought."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from data_parsing.plans.plan import PlannedScenario
from data_parsing.records.reading import Measurement, Record
from data_parsing.records.record_costs import StepCosts
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import NUMBER, frame
from data_parsing.tables.scenario_columns import IDENTITY, PROVENANCE, scenario_cells
from data_parsing.tables.tree_model import expected_speedup, expected_tokens_per_step

_MEASURES = (
    "measured_tokens_per_step",
    "measured_tokens_per_step_ci_low",
    "measured_tokens_per_step_ci_high",
    "predicted_tokens_per_step",
    "num_nodes",
    "measured_speedup",
    "measured_ci_low",
    "measured_ci_high",
    "predicted_speedup",
)
SCHEMA = IDENTITY | dict.fromkeys(_MEASURES, NUMBER) | PROVENANCE

_Source = tuple[str, str, str, str, float | None, str, str]


def predictions_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``predictions``: one row per scenario that drafts; blank what was not measured or cannot be predicted."""
    drafting = [record for record in records.records if record.planned.drafts]
    sources = _sources(drafting)
    rows = [_row(record, records, sources.get(_source(record.planned), [])) for record in drafting]
    return {"predictions": frame(rows, SCHEMA)}


def _source(planned: PlannedScenario) -> _Source:
    """What two scenarios have in common if a rank means the same in both."""
    # Greedy tokens are the same by every verifier that is right; drawn ones are accepted as often as their rule allows.
    verifier = planned.verifier if planned.decoding == "stochastic" else ""
    models = planned.target, planned.draft, planned.quantisation
    return *models, planned.prompt_set, planned.temperature, planned.drafting.selection, verifier


def _sources(records: Iterable[Record]) -> dict[_Source, list[Record]]:
    """Measured records by what they can speak for, the best first."""
    sources: dict[_Source, list[Record]] = {}
    for record in records:
        drafting = record.planned.drafting
        if record.measurement is not None and (drafting.expansion or drafting.is_planned_by_rank):
            sources.setdefault(_source(record.planned), []).append(record)
    return {key: sorted(found, key=_weight, reverse=True) for key, found in sources.items()}


def _weight(record: Record) -> tuple[bool, int, float]:
    """A fixed tree before one that seldom offers its last ranks, then the wider, then who has seen more of them."""
    assert record.measurement is not None
    offered_DK = record.measurement.rank_counts.offered
    return bool(record.planned.drafting.expansion), offered_DK.shape[1], float(offered_DK[:, -1:].sum())


def _other(planned: PlannedScenario, sources: Iterable[Record]) -> Measurement | None:
    """The best record with another tree and as many ranks.

    The same tree accepts the same at every batch size: from such a record as from its own, nothing is predicted.
    """
    expansion = planned.drafting.expansion
    measured = (other.measurement for other in sources if other.planned.drafting.expansion != expansion)
    wide = (m for m in measured if m is not None and len(m.rank_counts.rates) >= max(expansion))
    return next(wide, None)


def _row(record: Record, records: RecordSet, sources: list[Record]) -> dict[str, Any]:
    planned, measurement = record.planned, record.measurement
    row = scenario_cells(record)
    if measurement is not None:
        row |= _measured_cells(measurement)
    if planned.drafting.expansion:
        row["num_nodes"] = sum(planned.drafting.level_sizes)
    if measurement is None:
        return row
    speedup = records.speedups.get(planned.scenario)
    if speedup is not None:
        row |= {"measured_speedup": speedup.value, "measured_ci_low": speedup.low, "measured_ci_high": speedup.high}
    source = _other(planned, sources) if planned.drafting.expansion else None
    if source is not None:
        costs = records.step_costs(planned.placement, planned.drafting.model)
        row |= _predicted_cells(planned, measurement, source, costs)
    return row


def _measured_cells(measurement: Measurement) -> dict[str, float]:
    """Per decoding step; the size of the trees is theirs where the plan does not fix it."""
    counts = ["num_draft_tokens", "num_decoding_steps"]
    num_drafted, num_steps = measurement.requests[counts].sum().tolist()
    if not num_steps:
        return {}
    tokens = measurement.tokens_per_step
    return {
        "measured_tokens_per_step": tokens.value,
        "measured_tokens_per_step_ci_low": tokens.low,
        "measured_tokens_per_step_ci_high": tokens.high,
        "num_nodes": num_drafted / num_steps,
    }


def _predicted_cells(
    planned: PlannedScenario, measurement: Measurement, source: Measurement, costs: StepCosts | None
) -> dict[str, float]:
    """By the acceptance of another record; the costs may be unknown."""
    num_tokens = round(measurement.requests["num_output_tokens"].mean())
    if num_tokens < 2:
        return {}
    tokens_per_step = expected_tokens_per_step(source.rank_counts.rates, planned.drafting.expansion, num_tokens)
    cells = {"predicted_tokens_per_step": tokens_per_step}
    if costs is not None:
        batch_size = min(planned.batch_size, len(measurement.requests) // measurement.num_repeats)
        as_sequences = planned.tree_layout == "sequences"
        cells["predicted_speedup"] = expected_speedup(
            tokens_per_step, planned.drafting, costs, batch_size, as_sequences=as_sequences
        )
    return cells
