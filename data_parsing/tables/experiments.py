"""The long tables: one row per planned scenario, with what was really measured; one table per word of the plans."""

from __future__ import annotations

from typing import Any

import pandas as pd

from data_parsing.intervals import median_interval
from data_parsing.records.reading import Measurement, Record
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import NUMBER, frame
from data_parsing.tables.offloading import OFFLOADING, offloading_cells
from data_parsing.tables.scenario_columns import IDENTITY, PROVENANCE, scenario_cells

ARTIFACT_TOKENS_PER_REQUEST = 128
"""Tokens the artifact's parser takes every request to have generated, whatever it did (prompt included, EOS or not)."""

_MEASURES = (
    "artifact_per_token_latency_ms",
    "per_token_latency_ms",
    "median_per_token_latency_ms",
    "p90_per_token_latency_ms",
    "p99_per_token_latency_ms",
    "ci_low_ms",
    "ci_high_ms",
    "tokens_per_step",
    "tokens_per_step_ci_low",
    "tokens_per_step_ci_high",
    "acceptance_rate",
    "draft_tokens_per_step",
    "speedup",
    "speedup_ci_low",
    "speedup_ci_high",
)
SCHEMA = IDENTITY | dict.fromkeys(_MEASURES, NUMBER) | OFFLOADING | PROVENANCE


def experiment_tables(records: RecordSet) -> dict[str, pd.DataFrame]:
    """One table per table that a plan names, in the long form."""
    return {
        table: frame([_row(record, records) for record in records.records if record.planned.table == table], SCHEMA)
        for table in records.tables
    }


def artifact_per_token_latency_ms(latencies_us: pd.Series) -> float:
    """The artifact's formula: the sum of the latencies over 128 tokens per entry."""
    return float(latencies_us.sum()) / (ARTIFACT_TOKENS_PER_REQUEST * len(latencies_us) * 1000)


def _row(record: Record, records: RecordSet) -> dict[str, Any]:
    row = scenario_cells(record)
    if record.measurement is not None:
        row |= _latency_cells(record.measurement) | _rate_cells(record.measurement)
        row |= offloading_cells(record.measurement)
    speedup = records.speedups.get(record.planned.scenario)
    if speedup is not None:
        row |= {"speedup": speedup.value, "speedup_ci_low": speedup.low, "speedup_ci_high": speedup.high}
    return row


def _latency_cells(measurement: Measurement) -> dict[str, float]:
    per_token_ms = pd.Series(measurement.per_token_ms.to_numpy().ravel())
    median = median_interval(measurement.per_token_ms)
    p90, p99 = per_token_ms.quantile([0.90, 0.99])
    return {
        "artifact_per_token_latency_ms": artifact_per_token_latency_ms(measurement.requests["latency_us"]),
        "per_token_latency_ms": per_token_ms.mean(),
        "median_per_token_latency_ms": median.value,
        "p90_per_token_latency_ms": p90,
        "p99_per_token_latency_ms": p99,
        "ci_low_ms": median.low,
        "ci_high_ms": median.high,
    }


def _rate_cells(measurement: Measurement) -> dict[str, float | None]:
    counts = ["num_decoding_steps", "num_accepted_tokens", "num_draft_tokens"]
    num_steps, num_accepted, num_drafted = measurement.requests[counts].sum().tolist()
    tokens_per_step = measurement.tokens_per_step
    return {
        "tokens_per_step": tokens_per_step.value,
        "tokens_per_step_ci_low": tokens_per_step.low,
        "tokens_per_step_ci_high": tokens_per_step.high,
        "acceptance_rate": _ratio(num_accepted, num_drafted),
        "draft_tokens_per_step": _ratio(num_drafted, num_steps),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
