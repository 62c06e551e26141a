"""Table ``token_equality``: whether a scenario emitted the tokens of incremental decoding at the smallest batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from data_parsing.records.baselines import Baselines, measured_pair
from data_parsing.records.reading import Record
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import COUNT, TEXT, frame

Outputs = set[tuple[int, ...]]

SCHEMA = {
    "experiment": TEXT,
    "size": TEXT,
    "purpose": TEXT,
    "batch_size": COUNT,
    "mode": TEXT,
    "scenario": TEXT,
    "status": TEXT,
    "baseline_scenario": TEXT,
    "num_prompts_compared": COUNT,
    "num_prompts_identical": COUNT,
    "first_different_prompt_index": COUNT,
    "dtype": TEXT,
}


@dataclass(frozen=True)
class TokenEquality:
    """Prompts that a scenario and incremental decoding both have, and those of them with the same tokens in both."""

    num_compared: int
    num_identical: int
    first_different_prompt_index: int | None


def token_equality(record: Record, records: Sequence[Record]) -> TokenEquality | None:
    """The comparison with incremental decoding at the smallest batch size, None where it can or need not be made."""
    return _equality(record, Baselines(records).plainest(record))


def token_equality_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``token_equality``: one row per planned scenario, blank counts where nothing is compared."""
    return {"token_equality": frame([_row(record, records.baselines) for record in records.records], SCHEMA)}


def _equality(record: Record, baseline: Record | None) -> TokenEquality | None:
    """None where a record does not count, and where tokens are drawn: two lossless ways draw different ones."""
    pair = measured_pair(record, baseline)
    if pair is None or record.planned.decoding == "stochastic":
        return None
    measured, incremental = pair
    if not measured.provenance.same_prompts(incremental.provenance):
        return None
    return _comparison(measured.outputs, incremental.outputs)


def _row(record: Record, baselines: Baselines) -> dict[str, Any]:
    planned = record.planned
    row: dict[str, Any] = {
        "experiment": planned.experiment,
        "size": planned.size,
        "purpose": planned.purpose,
        "batch_size": planned.batch_size,
        "mode": planned.mode,
        "scenario": planned.scenario,
        "status": record.status.value,
    }
    if record.measurement is not None:
        row["dtype"] = record.measurement.provenance.dtype
    baseline = baselines.plainest(record)
    if baseline is not None:
        row["baseline_scenario"] = baseline.planned.scenario
    equality = _equality(record, baseline)
    if equality is not None:
        row |= {
            "num_prompts_compared": equality.num_compared,
            "num_prompts_identical": equality.num_identical,
            "first_different_prompt_index": equality.first_different_prompt_index,
        }
    return row


def _comparison(outputs: Mapping[int, Outputs], expected: Mapping[int, Outputs]) -> TokenEquality:
    """Over the prompts that both have; a prompt is identical if every repeat of both emitted the same."""
    compared = sorted(outputs.keys() & expected.keys())
    different = [prompt for prompt in compared if len(outputs[prompt] | expected[prompt]) > 1]
    return TokenEquality(len(compared), len(compared) - len(different), different[0] if different else None)
