"""Tables ``server`` and ``offloading``: one row per planned scenario of theirs, with what was really measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from data_parsing.baselines import incremental_baseline, measured_pair
from data_parsing.frames import NUMBER, frame
from data_parsing.intervals import median_interval, median_ratio_interval, per_token_grid
from data_parsing.offloading import OFFLOADING, offloading_cells
from data_parsing.plan import FAMILIES
from data_parsing.records import Measurement, Record
from data_parsing.scenario_columns import IDENTITY, PROVENANCE, scenario_cells

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
    "acceptance_rate",
    "draft_tokens_per_step",
    "speedup",
    "speedup_ci_low",
    "speedup_ci_high",
)
SCHEMA = IDENTITY | dict.fromkeys(_MEASURES, NUMBER) | OFFLOADING | PROVENANCE


def experiment_tables(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """One table per family of experiments, in the long form."""
    return {
        family: frame([_row(r, records) for r in records if r.planned.family == family], SCHEMA) for family in FAMILIES
    }


def artifact_per_token_latency_ms(latencies_us: pd.Series) -> float:
    """The artifact's formula: the sum of the latencies over 128 tokens per entry."""
    return float(latencies_us.sum()) / (ARTIFACT_TOKENS_PER_REQUEST * len(latencies_us) * 1000)


def _row(record: Record, records: Sequence[Record]) -> dict[str, Any]:
    row = scenario_cells(record)
    if record.measurement is not None:
        row |= _latency_cells(record.measurement) | _rate_cells(record.measurement)
        row |= offloading_cells(record.measurement)
    baseline = incremental_baseline(record, records, record.planned.batch_size)
    pair = measured_pair(record, baseline)
    if pair is not None and pair[0].provenance.same_conditions(pair[1].provenance):
        measured, incremental = (per_token_grid(measurement.requests) for measurement in pair)
        speedup = median_ratio_interval(numerator=incremental, denominator=measured)
        row |= {"speedup": speedup.value, "speedup_ci_low": speedup.low, "speedup_ci_high": speedup.high}
    return row


def _latency_cells(measurement: Measurement) -> dict[str, float]:
    grid = per_token_grid(measurement.requests)
    per_token_ms = pd.Series(grid.to_numpy().ravel())
    median = median_interval(grid)
    return {
        "artifact_per_token_latency_ms": artifact_per_token_latency_ms(measurement.requests["latency_us"]),
        "per_token_latency_ms": per_token_ms.mean(),
        "median_per_token_latency_ms": median.value,
        "p90_per_token_latency_ms": per_token_ms.quantile(0.90),
        "p99_per_token_latency_ms": per_token_ms.quantile(0.99),
        "ci_low_ms": median.low,
        "ci_high_ms": median.high,
    }


def _rate_cells(measurement: Measurement) -> dict[str, float | None]:
    total = measurement.requests[
        ["num_step_tokens", "num_decoding_steps", "num_accepted_tokens", "num_draft_tokens"]
    ].sum()
    return {
        "tokens_per_step": _ratio(total["num_step_tokens"], total["num_decoding_steps"]),
        "acceptance_rate": _ratio(total["num_accepted_tokens"], total["num_draft_tokens"]),
        "draft_tokens_per_step": _ratio(total["num_draft_tokens"], total["num_decoding_steps"]),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
