"""Writes synthetic tables of the experiments behind the paper's figures 9 to 11 and tables 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.figures.table_files import LONG_COLUMNS, SCENARIO_COLUMNS, Row, measured_row, write_table

PROMPT_SETS = ("chatbot", "chatgpt", "webqa", "alpaca", "piqa")
DECODINGS = ("greedy", "stochastic")
WIDTHS = (1, 2, 3, 4, 5)
BATCH_SIZES = (1, 2, 4, 8, 16)
PLACES = {3: "third", 1: "first"}
KS = (1, 2, 3, 4, 5)
NUM_PROMPTS = 8
MEASURES = [name for name in measured_row() if name.startswith(("num_", "target_", "median", "ci_", "speedup"))]
MEASURES += ["device", "dtype", "commit", "tokens_per_step", "tokens_per_step_ci_low", "tokens_per_step_ci_high"]

Tables = dict[str, list[Row]]
"""Name of a table -> its rows."""


def without_record(row: Row, status: str = "missing") -> Row:
    """The row of the same scenario with nothing measured."""
    return row | dict.fromkeys(MEASURES, "") | {"status": status}


def row_of(table: str, mode: str, **cells: object) -> Row:
    """A measured scenario of an experiment."""
    row = measured_row() | {"experiment": table, "mode": mode, "decoding": "greedy", "tree_layout": "tree"} | cells
    details = "-".join(str(cells[key]) for key in ("size", "prompt_set", "batch_size") if key in cells)
    return row | {"scenario": f"{table}_{mode}_{details}"}


def tree(width: int, step: int) -> Row:
    """The columns of a tree of depth 8 that branches at one step, or of a chain."""
    expansion = ["1"] * 8
    expansion[step - 1] = str(width)
    return {"expansion": ".".join(expansion), "tree_width": width, "branching_step": "" if width == 1 else step}


def steps_cells(value: float) -> Row:
    """Tokens per step with an interval."""
    return {
        "tokens_per_step": value,
        "tokens_per_step_ci_low": value * 0.93,
        "tokens_per_step_ci_high": value * 1.05,
    }


def tokens_per_step(decoding: str, width: int, step: int) -> float:
    """More with wider trees, most with those that branch early."""
    start, gain = (2.6, 0.3) if decoding == "greedy" else (1.7, 0.15)
    return start + gain * (width - 1) ** 0.6 * (1.0 if step == 1 else 0.4)


def width_rows(
    prompt_sets: Sequence[str] = PROMPT_SETS, places: Sequence[int] = (3, 1), **changes: object
) -> list[Row]:
    """Table ``tree_width``: every prompt set, way of decoding, width and place of branching."""
    rows = []
    for prompt_set in prompt_sets:
        for decoding in DECODINGS:
            for width in WIDTHS:
                for step in places if width > 1 else places[:1]:
                    place = f"_{PLACES[step]}" if width > 1 else ""
                    cells: Row = {"prompt_set": prompt_set, "decoding": decoding, "batch_size": 1}
                    cells |= tree(width, step) | steps_cells(tokens_per_step(decoding, width, step))
                    rows.append(row_of("tree_width", f"{decoding}_width_{width}{place}", **(cells | changes)))
    return rows


def request_rows(scenarios: Sequence[Row]) -> list[Row]:
    """Table ``requests`` of the scenarios that have a record: two repeats of some prompts around the mean."""
    return [
        {
            "scenario": row["scenario"],
            "experiment": row["experiment"],
            "repeat": repeat,
            "prompt_index": prompt,
            "num_decoding_steps": 40,
            "tokens_per_step": row["tokens_per_step"] * (0.7 + 0.6 * prompt / (NUM_PROMPTS - 1)),
        }
        for row in scenarios
        if row["status"] == "ok"
        for repeat in range(2)
        for prompt in range(NUM_PROMPTS)
    ]


def latency_rows(sizes: Sequence[str] = ("small",)) -> list[Row]:
    """Table ``tree_width_latency``: wider is faster at batch sizes 1 and 2 only."""
    rows = []
    for size in sizes:
        for batch_size in BATCH_SIZES:
            for width in WIDTHS:
                median = 10 + batch_size / 2 - width * (0.6 if batch_size <= 2 else -0.3)
                cells = {"size": size, "batch_size": batch_size} | tree(width, 3) | latency_cells(median)
                rows.append(row_of("tree_width_latency", f"width_{width}", **cells))
    return rows


def latency_cells(median: float) -> Row:
    """A median latency with its interval."""
    return {"median_per_token_latency_ms": median, "ci_low_ms": median * 0.95, "ci_high_ms": median * 1.06}


def layout_rows(sizes: Sequence[str] = ("small",)) -> list[Row]:
    """Table ``parallel_decoding``: on par at batch size 1, 1.75 times at 16."""
    rows = []
    for size in sizes:
        for batch_size in BATCH_SIZES:
            for layout, mode in (("tree", "tree_based"), ("sequences", "sequence_based")):
                slower = 1 + (batch_size - 1) / 20 if layout == "sequences" else 1
                cells = {"size": size, "batch_size": batch_size, "tree_layout": layout}
                cells |= tree(3, 3) | latency_cells((8 + batch_size) * slower)
                rows.append(row_of("parallel_decoding", mode, **cells))
    return rows


def rank_rows(prompt_sets: Sequence[str] = PROMPT_SETS) -> list[Row]:
    """Table ``rank_success``."""
    wide: Row = {"expansion": "5.5.5", "tree_width": 5, "branching_step": 1, "batch_size": 1}
    return [
        row_of("rank_success", decoding, prompt_set=prompt_set, decoding=decoding, **wide)
        for prompt_set in prompt_sets
        for decoding in DECODINGS
    ]


def success_rows(scenarios: Sequence[Row]) -> list[Row]:
    """Table ``success_rates`` of the scenarios, blank where there is no record."""
    rows = []
    for row in scenarios:
        if row["status"] != "ok":
            rows.append(row | {"k": "", "num_tried": "", "success_rate": "", "ci_low": "", "ci_high": ""})
            continue
        for k in KS:
            rate = 1 - 0.4 / k
            rows.append(
                row | {"k": k, "num_tried": 500, "success_rate": rate, "ci_low": rate - 0.04, "ci_high": rate + 0.03}
            )
    return rows


def sampling_rows(prompt_sets: Sequence[str] = PROMPT_SETS) -> list[Row]:
    """Table ``sampling``: 2.0 tokens per step naive, 2.5 multi-step."""
    return [
        row_of(
            "sampling",
            f"{mode}_{PLACES[step]}",
            **{"prompt_set": prompt_set, "decoding": "stochastic", "verifier": verifier, "batch_size": 1},
            **tree(5, step),
            **steps_cells(value),
        )
        for prompt_set in prompt_sets
        for mode, verifier, value in (("naive", "sampler_match", 2.0), ("multi_step", "mss", 2.5))
        for step in PLACES
    ]


def all_tables() -> Tables:
    """Everything measured."""
    return {
        "tree_width": width_rows(),
        "tree_width_latency": latency_rows(),
        "parallel_decoding": layout_rows(),
        "rank_success": rank_rows(),
        "sampling": sampling_rows(),
    }


def thinned(tables: Mapping[str, Sequence[Row]]) -> Tables:
    """The same with every other record not there, for every reason in turn."""
    reasons = ("missing", "failed", "superseded", "incomplete")
    return {
        name: [without_record(row, reasons[n // 2 % 4]) if n % 2 else row for n, row in enumerate(rows)]
        for name, rows in tables.items()
    }


def emptied(tables: Mapping[str, Sequence[Row]]) -> Tables:
    """The same with nothing measured."""
    return {name: [without_record(row) for row in rows] for name, rows in tables.items()}


def write_paper_tables(csv_dir: Path, tables: Mapping[str, Sequence[Row]]) -> Path:
    """Write the tables, those that follow from them included; an experiment that is not named has no rows."""
    csv_dir.mkdir(parents=True, exist_ok=True)
    for name in all_tables():
        write_table(csv_dir / f"{name}.csv", LONG_COLUMNS, tables.get(name, []))
    requests = request_rows(tables.get("tree_width", []))
    columns = ["scenario", "experiment", "repeat", "prompt_index", "num_decoding_steps", "tokens_per_step"]
    write_table(csv_dir / "requests.csv", columns, requests)
    rates = success_rows(tables.get("rank_success", []))
    write_table(
        csv_dir / "success_rates.csv", [*SCENARIO_COLUMNS, "k", "num_tried", "success_rate", "ci_low", "ci_high"], rates
    )
    return csv_dir
