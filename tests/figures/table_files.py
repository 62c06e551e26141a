"""Writes synthetic tables with the columns that data_parsing gives them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODES = {"incremental": "incr_dec", "sequence": "sequence_specinfer", "tree": "tree_specinfer"}
PEER = "transformers"
SCENARIO_COLUMNS = [
    *("scenario", "size", "purpose", "mode", "batch_size", "status", "target", "draft", "offload", "quantisation"),
    *("prompt_set", "decoding", "expansion", "tree_width", "branching_step", "selection", "verifier", "tree_layout"),
    *("num_requests", "num_repeats", "device", "num_threads", "dtype", "commit"),
    *("target_description", "target_num_parameters", "draft_description", "experiment", "detail"),
]
LONG_COLUMNS = [
    *SCENARIO_COLUMNS,
    *("median_per_token_latency_ms", "ci_low_ms", "ci_high_ms", "speedup", "speedup_ci_low", "speedup_ci_high"),
    *("tokens_per_step", "tokens_per_step_ci_low", "tokens_per_step_ci_high"),
    *("acceptance_rate", "draft_tokens_per_step"),
]
SHARES = {"draft": 0.15, "build": 0.05, "forward": 0.5, "verify": 0.1, "commit": 0.15, "other": 0.05}
TIME_SPLIT_COLUMNS = [*SCENARIO_COLUMNS, *(f"{part}_share" for part in SHARES), "step_time_ms"]
SPEEDUP = {"incremental": 1.0, "sequence": 1.5, "tree": 2.0, "tree_auto": 4.0, PEER: 0.8}
DRAFTED = {"incremental": 0, "sequence": 8, "tree": 20, "tree_auto": 120, PEER: 0}
OFFLOADING_FIGURES = ("offloading_latency", "offloading_speedup", "tree_sizes")
FIGURES = ("server_latency", "server_speedup", *OFFLOADING_FIGURES, "time_split")
"""Those drawn from the tables of this module."""

Row = dict[str, Any]


def planned_row(mode: str = "tree", batch_size: int = 1, size: str = "small", status: str = "missing") -> Row:
    """A scenario without a record."""
    return {
        "scenario": f"server_{size}-{batch_size}_batchsize-{MODES.get(mode, mode)}",
        "experiment": "server_gpu",
        "size": size,
        "purpose": "measure",
        "mode": mode,
        "batch_size": batch_size,
        "status": status,
        "target": "llama-105M",
        "draft": "llama-draft",
    }


def measured_row(mode: str = "tree", batch_size: int = 1, size: str = "small", **changes: Any) -> Row:
    """A scenario with a record, and all columns of both tables."""
    latency_ms = 2.0 * batch_size / SPEEDUP[mode]
    measures = {
        "num_requests": 32,
        "num_repeats": 3,
        "device": "Example CPU @ 2.0GHz",
        "num_threads": 2,
        "dtype": "float32",
        "commit": "0123456789abcdef",
        "target_description": "embedded LLaMA target, inflated to 105M parameters",
        "target_num_parameters": 105300000,
        "median_per_token_latency_ms": latency_ms,
        "ci_low_ms": latency_ms * 0.9,
        "ci_high_ms": latency_ms * 1.2,
        "speedup": SPEEDUP[mode],
        "speedup_ci_low": SPEEDUP[mode] * 0.9,
        "speedup_ci_high": SPEEDUP[mode] * 1.1,
        "draft_tokens_per_step": DRAFTED[mode],
        "step_time_ms": 12.5,
    }
    shares = {f"{part}_share": share for part, share in SHARES.items()}
    return planned_row(mode, batch_size, size, status="ok") | measures | shares | changes


def grid(batch_sizes: tuple[int, ...] = (1, 2, 4, 8), size: str = "small", **changes: Any) -> list[Row]:
    """A measured row per mode and batch size."""
    return [measured_row(mode, batch_size, size, **changes) for batch_size in batch_sizes for mode in MODES]


def streamed(rows: list[Row], **changes: Any) -> list[Row]:
    """The rows as those of the offloading experiment."""
    return [
        row
        | {"experiment": "offloading", "offload": "disk", "target": "opt-103M"}
        | {"scenario": f"offloading_{row['size']}_{row['batch_size']}-mode_{row['mode']}"}
        | changes
        for row in rows
        if row["mode"] != PEER
    ]


def offloading_grid(batch_sizes: tuple[int, ...] = (1, 4, 8), size: str = "small", **changes: Any) -> list[Row]:
    """The offloading experiment, with the automatic tree."""
    modes = (*MODES, "tree_auto")
    return streamed([measured_row(mode, batch, size) for batch in batch_sizes for mode in modes], **changes)


def every_placement(rows: list[Row]) -> list[Row]:
    """Rows of the offloading experiment with weights as they are stored, and beside them rounded and resident."""
    kept = (
        ("", {}),
        ("-quantisation_int8", {"quantisation": "int8"}),
        ("-quantisation_int4", {"quantisation": "int4"}),
    )
    return [
        row | changes | {"scenario": row["scenario"] + suffix}
        for suffix, changes in (*kept, ("-offload_false", {"offload": ""}))
        for row in rows
    ]


def as_read_by(figure: str, rows: list[Row]) -> list[Row]:
    """The rows as the figure's own experiment has them."""
    return streamed(rows) if figure in OFFLOADING_FIGURES else rows


def with_peer(rows: list[Row]) -> list[Row]:
    """The rows, and a measured one of the peer beside each incremental one."""
    ours = [row for row in rows if row["mode"] == "incremental"]
    return [*rows, *(measured_row(PEER, row["batch_size"], row["size"]) for row in ours)]


def write_tables(csv_dir: Path, rows: list[Row]) -> Path:
    """Write every table that figures read with the rows of its experiment; returns their folder."""
    csv_dir.mkdir(parents=True, exist_ok=True)
    streamed = [row for row in rows if row["experiment"] == "offloading"]
    resident = [row for row in rows if row not in streamed]
    # Parsing knows nothing of where a peer's time goes.
    ours = [row for row in rows if row["mode"] != PEER]
    for name, columns, of_table in (
        ("server", LONG_COLUMNS, resident),
        ("offloading", [*LONG_COLUMNS, "streamed_bytes"], streamed),
        ("time_split", TIME_SPLIT_COLUMNS, ours),
    ):
        write_table(csv_dir / f"{name}.csv", columns, of_table)
    return csv_dir


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write one table; cells without a value are blank."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
