"""Reader of a record's ``.jsonl``: one line per request and repeat."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from data_parsing.records.record_fields import (
    DamagedRecordError,
    count_of,
    counts_of,
    duration_of,
    parse_json_object,
    read_text,
    rows_of_counts,
    text_or_none,
)

Ranks = tuple[tuple[int, ...], ...]

COLUMNS = {
    "repeat": "int64",
    "prompt_index": "int64",
    "category": "object",
    "output_token_ids": "object",
    "num_output_tokens": "int64",
    "num_draft_tokens": "int64",
    "num_accepted_tokens": "int64",
    "num_decoding_steps": "int64",
    "num_step_tokens": "int64",
    "accepted_per_step": "object",
    "offered": "object",
    "accepted": "object",
    "latency_us": "float64",
}
"""Columns and types of the rows.

``num_step_tokens`` is what the decoding steps emitted (accepted + 1 each); ``offered`` and ``accepted`` are counts of
steps by [depth][rank].
"""


def read_request_rows(path: Path) -> pd.DataFrame:
    """The rows of a ``.jsonl`` with COLUMNS. Raises DamagedRecordError naming the line that breaks the format."""
    try:
        lines = read_text(path).split("\n")
    except FileNotFoundError as error:
        raise DamagedRecordError(".jsonl is missing") from error
    if lines[-1] == "":
        lines.pop()
    rows = [_row(line, f".jsonl line {number}") for number, line in enumerate(lines, start=1)]
    # In batches of equal requests every prompt is there once per place in the batch.
    if len(set(Counter((row["repeat"], row["prompt_index"]) for row in rows).values())) > 1:
        raise DamagedRecordError(".jsonl holds one prompt more often than another")
    return pd.DataFrame({key: pd.Series([row[key] for row in rows], dtype=kind) for key, kind in COLUMNS.items()})


def _row(line: str, where: str) -> dict[str, Any]:
    item = parse_json_object(line, where)
    try:
        return _checked(item)
    except DamagedRecordError as damage:
        raise DamagedRecordError(f"{where}: {damage}") from damage


def _checked(item: dict[str, Any]) -> dict[str, Any]:
    output_token_ids = counts_of(item, "output_token_ids")
    accepted_per_step = counts_of(item, "accepted_per_step")
    # The pass that ends the prompt emits the first token; nothing is drafted for it.
    decoding = accepted_per_step[1:]
    offered = rows_of_counts(item, "offered_by_depth_and_rank")
    accepted = rows_of_counts(item, "accepted_by_depth_and_rank")
    _check_ranks(offered, accepted)
    row = {
        "repeat": count_of(item, "repeat"),
        "prompt_index": count_of(item, "prompt_index"),
        "category": text_or_none(item, "category"),
        "output_token_ids": output_token_ids,
        "num_output_tokens": count_of(item, "num_output_tokens"),
        "num_draft_tokens": count_of(item, "num_draft_tokens"),
        "num_accepted_tokens": count_of(item, "num_accepted_tokens"),
        "num_decoding_steps": len(decoding),
        "num_step_tokens": sum(decoding) + len(decoding),
        "accepted_per_step": decoding,
        "offered": offered,
        "accepted": accepted,
        "latency_us": duration_of(item, "latency_us"),
    }
    if len(output_token_ids) != row["num_output_tokens"]:
        raise DamagedRecordError("num_output_tokens does not count output_token_ids")
    if sum(accepted_per_step) != row["num_accepted_tokens"]:
        raise DamagedRecordError("num_accepted_tokens is not the sum of accepted_per_step")
    return row


def _check_ranks(offered: Ranks, accepted: Ranks) -> None:
    """What was accepted was offered: of the same depths and ranks, and no more often."""
    if list(map(len, offered)) != list(map(len, accepted)):
        raise DamagedRecordError("accepted_by_depth_and_rank has not the depths and ranks that were offered")
    if any(a > o for depth in zip(offered, accepted, strict=True) for o, a in zip(*depth, strict=True)):
        raise DamagedRecordError("accepted_by_depth_and_rank is more than was offered")
