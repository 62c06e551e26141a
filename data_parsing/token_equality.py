"""Table ``token_equality``: whether a scenario emitted the very tokens of incremental decoding at batch size 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from data_parsing.baselines import incremental_baseline, measured_pair
from data_parsing.frames import COUNT, TEXT, frame
from data_parsing.records import Record

SCHEMA = {
    "experiment": TEXT,
    "size": TEXT,
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


def token_equality_table(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """``token_equality``: one row per planned scenario, blank counts where either record does not count."""
    return {"token_equality": frame([_row(record, records) for record in records], SCHEMA)}


def _row(record: Record, records: Sequence[Record]) -> dict[str, Any]:
    planned = record.planned
    row: dict[str, Any] = {
        "experiment": planned.experiment,
        "size": planned.size,
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
    pair = measured_pair(record, baseline)
    if pair is not None and pair[0].provenance.same_prompts(pair[1].provenance):
        row |= _comparison(pair[0].requests, pair[1].requests)
    return row


def _comparison(requests: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, int | None]:
    """Counts over the prompts that both have; a prompt is identical if every repeat of both emitted the same."""
    outputs, expected = _outputs_by_prompt(requests), _outputs_by_prompt(baseline)
    compared = sorted(outputs.keys() & expected.keys())
    different = [prompt for prompt in compared if len(outputs[prompt] | expected[prompt]) > 1]
    return {
        "num_prompts_compared": len(compared),
        "num_prompts_identical": len(compared) - len(different),
        "first_different_prompt_index": different[0] if different else None,
    }


def _outputs_by_prompt(requests: pd.DataFrame) -> dict[int, set[tuple[int, ...]]]:
    return {int(prompt): set(outputs) for prompt, outputs in requests.groupby("prompt_index")["output_token_ids"]}
