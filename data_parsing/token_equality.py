"""Table ``token_equality``: whether a scenario emitted the very tokens of incremental decoding at batch size 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from data_parsing.baselines import incremental_baseline, measured_pair
from data_parsing.frames import COUNT, TEXT, frame
from data_parsing.records import Record

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
    """The comparison with incremental decoding at batch size 1, None where either record does not count."""
    pair = measured_pair(record, incremental_baseline(record, records, batch_size=1))
    if pair is None or not pair[0].provenance.same_prompts(pair[1].provenance):
        return None
    return _comparison(pair[0].requests, pair[1].requests)


def token_equality_table(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """``token_equality``: one row per planned scenario, blank counts where either record does not count."""
    return {"token_equality": frame([_row(record, records) for record in records], SCHEMA)}


def _row(record: Record, records: Sequence[Record]) -> dict[str, Any]:
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
    baseline = incremental_baseline(record, records, batch_size=1)
    if baseline is not None:
        row["baseline_scenario"] = baseline.planned.scenario
    equality = token_equality(record, records)
    if equality is not None:
        row |= {
            "num_prompts_compared": equality.num_compared,
            "num_prompts_identical": equality.num_identical,
            "first_different_prompt_index": equality.first_different_prompt_index,
        }
    return row


def _comparison(requests: pd.DataFrame, baseline: pd.DataFrame) -> TokenEquality:
    """Over the prompts that both have; a prompt is identical if every repeat of both emitted the same."""
    outputs, expected = _outputs_by_prompt(requests), _outputs_by_prompt(baseline)
    compared = sorted(outputs.keys() & expected.keys())
    different = [prompt for prompt in compared if len(outputs[prompt] | expected[prompt]) > 1]
    return TokenEquality(len(compared), len(compared) - len(different), different[0] if different else None)


def _outputs_by_prompt(requests: pd.DataFrame) -> dict[int, set[tuple[int, ...]]]:
    return {int(prompt): set(outputs) for prompt, outputs in requests.groupby("prompt_index")["output_token_ids"]}
