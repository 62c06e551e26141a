"""Writes made-up tables of what a researcher's figures read, with the columns that data_parsing gives them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

IDENTITY = [
    *("scenario", "size", "purpose", "mode", "batch_size", "status", "target", "draft", "offload", "quantisation"),
    *("prompt_set", "decoding", "expansion", "tree_width", "branching_step", "selection", "verifier", "tree_layout"),
    *("num_requests", "num_repeats", "device", "num_threads", "dtype", "commit"),
    *("target_description", "target_num_parameters", "draft_description", "experiment", "detail"),
]
PROMPT_SETS = ("chatbot", "chatgpt", "webqa", "alpaca", "piqa")
CHAIN = "1.1.1.1.1.1.1.1"
TREE = "1.1.3.1.1.1.1.1"
RATE = 0.7
"""Of every depth, for the first proposal; each further one takes half of what the one before took."""

ACCEPTANCE = ["depth", "rank", "num_offered", "num_accepted", "rate", "ci_low", "ci_high"]
LENGTHS = ["num_accepted", "num_steps", "share", "cumulative_share"]
PREDICTIONS = [
    *("measured_tokens_per_step", "measured_tokens_per_step_ci_low", "measured_tokens_per_step_ci_high"),
    *("predicted_tokens_per_step", "num_nodes"),
    *("measured_speedup", "measured_ci_low", "measured_ci_high", "predicted_speedup"),
]
TABLES = {"server_gpu": "server"} | {name: name for name in ("offloading", "tree_width", "rank_success", "sampling")}
"""Experiment -> the table of its scenarios."""
SCENARIO_MEASURES = [
    *("median_per_token_latency_ms", "ci_low_ms", "ci_high_ms", "speedup", "speedup_ci_low", "speedup_ci_high"),
    *("tokens_per_step", "tokens_per_step_ci_low", "tokens_per_step_ci_high"),
    *("acceptance_rate", "draft_tokens_per_step"),
]
COSTS = [
    *("placement", "target", "size", "offload", "quantisation", "device", "num_threads"),
    *("target_description", "part", "rows", "time_ms", "ratio"),
]
RECORD = {
    "num_requests": 32,
    "num_repeats": 3,
    "device": "Example CPU @ 2.0GHz",
    "num_threads": 2,
    "dtype": "float32",
    "commit": "0123456789abcdef",
    "target_description": "embedded LLaMA target, inflated to 105M parameters",
    "target_num_parameters": 105300000,
}


def scenario(name: str, mode: str = "tree", expansion: str = TREE, status: str = "ok", **changes: Any) -> Row:
    """A planned scenario, measured if its status is ok."""
    widths = [int(width) for width in expansion.split(".")] if expansion else []
    wide = [step for step, width in enumerate(widths, 1) if width > 1]
    planned = {
        "scenario": name,
        "experiment": "server_gpu",
        "size": "small",
        "purpose": "measure",
        "mode": mode,
        "batch_size": 1,
        "status": status,
        "target": "llama-105M",
        "draft": "llama-draft",
        "prompt_set": "chatgpt",
        "decoding": "greedy",
        "expansion": expansion,
        "tree_width": max(widths, default=""),
        "branching_step": wide[0] if wide else "",
        "selection": "top_k",
        "verifier": "greedy",
        "tree_layout": "tree",
    }
    return planned | (RECORD if status == "ok" else {}) | changes


def incremental(name: str, **changes: Any) -> Row:
    """A scenario that does not speculate."""
    return scenario(name, "incremental", "", draft="", selection="", verifier="") | changes


def depth_rates(row: Row) -> list[list[float]]:
    """Depth by depth, the made-up rate of every rank."""
    if not row["expansion"]:
        return [[RATE, RATE / 4] for _ in range(5)]
    return [[RATE * 0.25**rank for rank in range(int(width))] for width in row["expansion"].split(".")]


def acceptance_rows(row: Row, num_steps: int = 4000) -> list[Row]:
    """The acceptance table's rows of a scenario; one with blanks without a record."""
    if row["status"] != "ok":
        return [row]
    rows, reached = [], num_steps
    for depth, rates in enumerate(depth_rates(row), 1):
        for rank, rate in enumerate(rates, 1):
            values = {"rate": rate, "ci_low": rate * 0.9, "ci_high": rate * 1.08}
            counts = {"num_offered": reached, "num_accepted": round(reached * rate)}
            rows.append(row | {"depth": depth, "rank": rank} | counts | values)
        reached = round(reached * sum(rates))
    return rows


def length_shares(row: Row) -> list[float]:
    """Share of steps by how many tokens they accept."""
    shares, reached = [], 1.0
    for rates in depth_rates(row):
        shares.append(reached * (1 - sum(rates)))
        reached *= sum(rates)
    return [*shares, reached]


def length_rows(row: Row, num_steps: int = 4000) -> list[Row]:
    """The accepted lengths of a scenario; one row with blanks without a record."""
    if row["status"] != "ok":
        return [row]
    shares = length_shares(row)
    return [
        row
        | {"num_accepted": number, "num_steps": round(num_steps * share), "share": share}
        | {"cumulative_share": sum(shares[: number + 1])}
        for number, share in enumerate(shares)
    ]


def tokens_per_step(row: Row) -> float:
    """What a step of a scenario emits."""
    return 1 + sum(number * share for number, share in enumerate(length_shares(row)))


def scenario_row(row: Row) -> Row:
    """A scenario in its experiment's table."""
    if row["status"] != "ok" or not row["draft"]:
        return row
    tokens = tokens_per_step(row)
    return row | {
        "tokens_per_step": tokens,
        "tokens_per_step_ci_low": tokens * 0.9,
        "tokens_per_step_ci_high": tokens * 1.1,
    }


def prediction_row(row: Row, speedup: float = 1.5, **changes: Any) -> Row:
    """What is predicted of a scenario, beside what was measured; blank without a record."""
    if row["status"] != "ok":
        return row
    tokens = tokens_per_step(row)
    nodes = 1.0
    num_nodes = 0.0
    for rates in depth_rates(row):
        nodes *= len(rates)
        num_nodes += nodes
    measures = {
        "measured_tokens_per_step": tokens,
        "measured_tokens_per_step_ci_low": tokens * 0.9,
        "measured_tokens_per_step_ci_high": tokens * 1.1,
        "predicted_tokens_per_step": tokens * 1.05,
        "num_nodes": num_nodes,
        "measured_speedup": speedup,
        "measured_ci_low": speedup * 0.9,
        "measured_ci_high": speedup * 1.1,
        "predicted_speedup": speedup * 1.2,
    }
    return row | measures | changes


def cost_rows(row: Row, placement: str = "server_gpu-small", slope: float = 0.1, last: int = 512) -> list[Row]:
    """Curves of the placement that a scenario runs on: t(n) = 20 (1 + slope (n - 1)) ms, and a tenth for the draft."""
    rows = []
    identity = {key: row[key] for key in ("target", "size", "offload", "quantisation") if key in row}
    identity |= {"placement": placement} | {key: RECORD[key] for key in ("device", "num_threads")}
    identity |= {"target_description": row["target_description"]}
    for part, first_ms, part_last in (("target", 20.0, last), ("draft_level", 2.0, last)):
        num_rows = 1
        while num_rows <= part_last:
            ratio = 1 + slope * (num_rows - 1)
            rows.append(identity | {"part": part, "rows": num_rows, "time_ms": first_ms * ratio, "ratio": ratio})
            num_rows *= 2
    return rows


def server(batch_sizes: Sequence[int] = (1, 2, 4, 8), size: str = "small", **changes: Any) -> list[Row]:
    """The three modes of the server experiment."""
    rows = []
    for batch_size in batch_sizes:
        name = f"server_{size}-{batch_size}_batchsize"
        own = {"size": size, "batch_size": batch_size} | changes
        rows += [
            incremental(f"{name}-incr_dec", **own),
            scenario(f"{name}-sequence_specinfer", "sequence", CHAIN, **own),
            scenario(f"{name}-tree_specinfer", "tree", TREE, **own),
        ]
    return rows


def offloading(batch_sizes: Sequence[int] = (1, 2, 4, 8, 16), **changes: Any) -> list[Row]:
    """The offloading experiment: four ways of keeping the weights, with the automatic tree."""
    rows = []
    kept = (("disk", ""), ("disk", "int8"), ("disk", "int4"), ("", ""))
    for offload, quantisation in kept:
        for batch_size in batch_sizes:
            name = f"offloading_small_{batch_size}-{offload}{quantisation}"
            own = {"experiment": "offloading", "target": "opt-105M", "offload": offload, "quantisation": quantisation}
            own |= {"batch_size": batch_size} | changes
            rows += [
                incremental(f"{name}-incr", **own),
                scenario(f"{name}-sequence", "sequence", CHAIN, **own),
                scenario(f"{name}-tree", "tree", TREE, **own),
                scenario(f"{name}-auto", "tree_auto", "", **own),
            ]
    return rows


def tree_width(prompt_sets: Sequence[str] = PROMPT_SETS, **changes: Any) -> list[Row]:
    """Widths 1 to 5, branching at the third and the first step, greedy and stochastic."""
    rows = []
    for decoding, selection, verifier in (("greedy", "top_k", "greedy"), ("stochastic", "iid", "mss")):
        for prompt_set in prompt_sets:
            own = {"experiment": "tree_width", "prompt_set": prompt_set, "decoding": decoding}
            own |= {"selection": selection, "verifier": verifier} | changes
            for width in range(1, 6):
                for place, step in (("third", 2), ("first", 0)):
                    if width == 1 and place == "first":
                        continue
                    steps = ["1"] * 8
                    steps[step] = str(width)
                    mode = f"{decoding}_width_{width}" + (f"_{place}" if width > 1 else "")
                    rows.append(scenario(f"tree_width-{prompt_set}-{mode}", mode, ".".join(steps), **own))
    return rows


def sampling(**changes: Any) -> list[Row]:
    """Naive sampling on the same trees as multi-step speculative sampling."""
    own = {"experiment": "sampling", "decoding": "stochastic", "selection": "iid"} | changes
    return [
        scenario(f"sampling-{mode}", mode, "1.1.5.1.1.1.1.1", **{"verifier": verifier, **own})
        for mode, verifier in (("naive", "sampler_match"), ("multi_step", "mss"))
    ]


def unmeasured(rows: Sequence[Row], status: str = "missing") -> list[Row]:
    """The same scenarios without records."""
    return [row | dict.fromkeys(RECORD, "") | {"status": status} for row in rows]


def half(rows: Sequence[Row]) -> list[Row]:
    """Every other scenario without a record, for one reason or another."""
    statuses = ("missing", "failed", "superseded", "incomplete")
    return [
        row if number % 2 else unmeasured([row], statuses[number // 2 % len(statuses)])[0]
        for number, row in enumerate(rows)
    ]


def everything() -> list[Row]:
    """All experiments that speculate, as a laptop plans them."""
    return [*server(), *offloading(), *tree_width(), *sampling()]


def write_tables(csv_dir: Path, scenarios: Sequence[Row], costs: Sequence[Row] | None = None) -> Path:
    """Write the tables of the scenarios that draft, as data_parsing does, and of their costs unless told otherwise.

    Returns the folder.
    """
    csv_dir.mkdir(parents=True, exist_ok=True)
    for experiment, table in TABLES.items():
        own = [scenario_row(row) for row in scenarios if row["experiment"] == experiment]
        write(csv_dir / f"{table}.csv", [*IDENTITY, *SCENARIO_MEASURES], own)
    scenarios = [row for row in scenarios if row["draft"]]
    predictions = [prediction_row(row, 1 + number % 7 / 5) for number, row in enumerate(scenarios)]
    if costs is None:
        measured = {
            (row["target"], row["size"], row.get("offload"), row.get("quantisation")): row
            for row in scenarios
            if row["status"] == "ok"
        }
        costs = [
            line
            for number, row in enumerate(measured.values())
            for line in cost_rows(row, f"placement_{number}", 0.02 * (number + 1))
        ]
    write(csv_dir / "acceptance.csv", [*IDENTITY, *ACCEPTANCE], [r for row in scenarios for r in acceptance_rows(row)])
    write(csv_dir / "accepted_lengths.csv", [*IDENTITY, *LENGTHS], [r for row in scenarios for r in length_rows(row)])
    write(csv_dir / "predictions.csv", [*IDENTITY, *PREDICTIONS], predictions)
    write(csv_dir / "verify_costs.csv", COSTS, costs)
    return csv_dir


def write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write one table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
