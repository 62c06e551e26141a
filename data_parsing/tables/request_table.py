"""Table ``requests``: one row per request and repeat of every record that counts."""

from __future__ import annotations

import pandas as pd

from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import COUNT, NUMBER, TEXT, frame, typed

SCHEMA = {
    "scenario": TEXT,
    "experiment": TEXT,
    "repeat": COUNT,
    "prompt_index": COUNT,
    "category": TEXT,
    "num_output_tokens": COUNT,
    "num_decoding_steps": COUNT,
    "tokens_per_step": NUMBER,
    "latency_ms": NUMBER,
    "per_token_latency_ms": NUMBER,
}


_FROM_RECORDS = ["repeat", "prompt_index", "category", "num_output_tokens", "num_decoding_steps"]


def request_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``requests``: in the order of the plan and of the records; what has no record that counts has no row."""
    measured = {r.planned.scenario: r.measurement.requests for r in records.records if r.measurement is not None}
    if not measured:
        return {"requests": frame([], SCHEMA)}
    requests = pd.concat(measured, names=["scenario"]).reset_index("scenario")
    experiments = {record.planned.scenario: record.planned.experiment for record in records.records}
    latency_ms = requests["latency_us"] / 1000
    # Without steps or tokens there is no rate; a division by 0 would make an infinite one.
    steps, tokens = (requests[key].where(requests[key] > 0) for key in ("num_decoding_steps", "num_output_tokens"))
    table = requests[["scenario", *_FROM_RECORDS]].assign(
        experiment=requests["scenario"].map(experiments),
        tokens_per_step=requests["num_step_tokens"] / steps,
        latency_ms=latency_ms,
        per_token_latency_ms=latency_ms / tokens,
    )
    return {"requests": typed(table, SCHEMA)}
