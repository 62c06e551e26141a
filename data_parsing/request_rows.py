"""Reader of a record's ``.jsonl``: one line per request and repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from data_parsing.record_fields import (
    DamagedRecordError,
    count_of,
    counts_of,
    duration_of,
    parse_json_object,
    read_text,
)

COLUMNS = {
    "repeat": "int64",
    "prompt_index": "int64",
    "output_token_ids": "object",
    "num_output_tokens": "int64",
    "num_draft_tokens": "int64",
    "num_accepted_tokens": "int64",
    "num_decoding_steps": "int64",
    "num_step_tokens": "int64",
    "latency_us": "float64",
}
"""Columns and types of the rows; ``num_step_tokens`` is what the decoding steps emitted (accepted + 1 each)."""


def read_request_rows(path: Path) -> pd.DataFrame:
    """The rows of a ``.jsonl`` with COLUMNS. Raises DamagedRecordError naming the line that breaks the format."""
    try:
        lines = read_text(path).split("\n")
    except FileNotFoundError as error:
        raise DamagedRecordError(".jsonl is missing") from error
    if lines[-1] == "":
        lines.pop()
    rows = [_row(line, f".jsonl line {number}") for number, line in enumerate(lines, start=1)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    # In batches of equal requests every prompt is there once per place in the batch.
    if frame.groupby(["repeat", "prompt_index"]).size().nunique() > 1:
        raise DamagedRecordError(".jsonl holds one prompt more often than another")
    return frame


def _row(line: str, where: str) -> dict[str, Any]:
    item = parse_json_object(line, where)
    try:
        output_token_ids = counts_of(item, "output_token_ids")
        accepted_per_step = counts_of(item, "accepted_per_step")
        row = {
            "repeat": count_of(item, "repeat"),
            "prompt_index": count_of(item, "prompt_index"),
            "output_token_ids": output_token_ids,
            "num_output_tokens": count_of(item, "num_output_tokens"),
            "num_draft_tokens": count_of(item, "num_draft_tokens"),
            "num_accepted_tokens": count_of(item, "num_accepted_tokens"),
            "num_decoding_steps": len(accepted_per_step),
            "num_step_tokens": sum(accepted_per_step) + len(accepted_per_step),
            "latency_us": duration_of(item, "latency_us"),
        }
    except DamagedRecordError as damage:
        raise DamagedRecordError(f"{where}: {damage}") from damage
    if len(output_token_ids) != row["num_output_tokens"]:
        raise DamagedRecordError(f"{where}: num_output_tokens does not count output_token_ids")
    return row
