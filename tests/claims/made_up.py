"""Writes made-up tables with the columns that data_parsing gives them, in which the right verdicts are known."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

PAPER = Path(__file__).parents[2] / "paper"
LONG_COLUMNS = (
    *("scenario", "size", "purpose", "mode", "batch_size", "status", "target", "draft", "offload", "quantisation"),
    *("prompt_set", "decoding", "expansion", "tree_width", "branching_step", "selection", "verifier", "tree_layout"),
    *("num_requests", "num_repeats", "median_per_token_latency_ms", "tokens_per_step"),
    *("target_description", "draft_description", "device", "num_threads", "dtype", "experiment", "detail"),
)
REQUEST_COLUMNS = (
    *("scenario", "experiment", "repeat", "prompt_index", "category", "num_output_tokens", "num_decoding_steps"),
    *("tokens_per_step", "latency_ms", "per_token_latency_ms"),
)
EQUALITY_COLUMNS = (
    *("experiment", "size", "purpose", "batch_size", "mode", "scenario", "status", "baseline_scenario"),
    *("num_prompts_compared", "num_prompts_identical", "first_different_prompt_index", "dtype"),
)
RATE_COLUMNS = (
    *LONG_COLUMNS[: LONG_COLUMNS.index("num_repeats") + 1],
    *("k", "num_tried", "success_rate", "ci_low", "ci_high"),
)
AUDIT_COLUMNS = (
    *("check", "verifier", "contract", "topology", "temperature", "num_outcomes", "total_variation", "p_value"),
    *("is_lossless_claimed", "verdict"),
)
TABLES = (
    *("server", "offloading", "tree_width", "tree_width_latency", "rank_success", "parallel_decoding", "sampling"),
)
PROMPT_SETS = ("chatbot", "chatgpt", "webqa", "alpaca", "piqa")
A10 = "NVIDIA A10G"
CPU = "Example CPU @ 2.0GHz"
LAPTOP = {"device": "cpu", "num_nodes": 1, "devices_per_node": 1, "description": "ignored"}
G5 = {"device": "cuda", "num_nodes": 2, "devices_per_node": 4}

Row = dict[str, Any]


@dataclass
class World:
    """Rows of every table, to be spoilt before they are written."""

    scenarios: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    requests: list[Row] = field(default_factory=list)
    rates: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    equality: list[Row] = field(default_factory=list)
    num_prompts: int = 12
    noise: float = 0.05
    """Standard deviation of the logarithm of a prompt's value, apart from what is the prompt's own."""

    def add(self, table: str, latency_ms: float = 10.0, tokens: float = 2.0, **cells: Any) -> Row:
        """A scenario with its requests; without a status it is ok, any other has no requests."""
        number = sum(map(len, self.scenarios.values()))
        row: Row = {
            "scenario": f"{table}_{number}",
            "experiment": table,
            "size": "small",
            "purpose": "measure",
            "status": "ok",
            "batch_size": 1,
            "prompt_set": "chatgpt",
            "target": "stand-in target",
            "draft": "stand-in draft",
            "decoding": "greedy",
            "device": CPU,
            "num_threads": 2,
            "dtype": "float32",
        } | cells
        if row["status"] != "ok":
            row |= dict.fromkeys(("device", "num_threads", "dtype"), "")
        self.scenarios[table].append(row)
        self._compare(row)
        if row["status"] == "ok":
            self._serve(row, latency_ms, tokens)
        return row

    def _serve(self, row: Row, latency_ms: float, tokens: float) -> None:
        own = np.random.default_rng([7, *row["prompt_set"].encode()]).normal(0, 0.3, self.num_prompts)
        rng = np.random.default_rng([11, *row["scenario"].encode()])
        for repeat in range(2):
            for prompt, factor in enumerate(np.exp(own + rng.normal(0, self.noise, self.num_prompts))):
                cells = {
                    "scenario": row["scenario"],
                    "experiment": row["experiment"],
                    "repeat": repeat,
                    "prompt_index": prompt,
                    "num_output_tokens": 128,
                    "num_decoding_steps": 50 + prompt,
                    "tokens_per_step": tokens * factor,
                    "per_token_latency_ms": latency_ms * factor,
                }
                self.requests.append(cells)

    def _compare(self, row: Row) -> None:
        counts = {"num_prompts_compared": self.num_prompts, "num_prompts_identical": self.num_prompts}
        self.equality.append(row | {"baseline_scenario": "a baseline"} | (counts if row["status"] == "ok" else {}))

    def write(self, folder: Path) -> Path:
        """Every table as CSV; returns their folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.scenarios.items():
            _write(folder / f"{name}.csv", LONG_COLUMNS, rows)
        _write(folder / "requests.csv", REQUEST_COLUMNS, self.requests)
        _write(folder / "token_equality.csv", EQUALITY_COLUMNS, self.equality)
        _write(folder / "success_rates.csv", RATE_COLUMNS, self.rates)
        _write(folder / "losslessness.csv", AUDIT_COLUMNS, self.audit)
        return folder


def server(world: World, speedup: Callable[[int], float], table: str = "server", **cells: Any) -> None:
    """The three modes at batch sizes 1 to 16; a tree is faster by ``speedup``, a sequence by its root."""
    for batch in (1, 2, 4, 8, 16):
        gain = speedup(batch)
        for mode, latency in (("incremental", 40.0), ("sequence", 40 / gain**0.5), ("tree", 40 / gain)):
            draft = {"draft": ""} if mode == "incremental" else {}
            world.add(table, latency_ms=latency, mode=mode, batch_size=batch, **cells | draft)


def paper_world(device: str = CPU, models: Mapping[str, str] | None = None, noise: float = 0.05) -> World:
    """Every table as the paper's claims would have it."""
    world = World(noise=noise)
    cells = {"device": device, **(models or {})}
    gains = {1: 2.4, 2: 2.3, 4: 2.0, 8: 1.7, 16: 1.6}
    server(world, lambda batch: gains[batch], **cells)
    server(world, lambda batch: gains[batch] * 1.3, size="large", **cells)
    server(world, lambda batch: 3.5 - batch / 20, table="offloading", offload="host", **cells)
    for prompts in PROMPT_SETS:
        _drafting(world, prompts, cells)
    for batch in (1, 2, 4, 8, 16):
        for width in range(1, 6):
            ideal = 5 if batch < 4 else 3
            latency = 20 * (1 + 0.2 * abs(width - ideal))
            world.add("tree_width_latency", latency, mode=f"width_{width}", tree_width=width, batch_size=batch, **cells)
        gain = {1: 1.0, 2: 1.0, 4: 1.2, 8: 1.5, 16: 1.8}[batch]
        for layout, latency in (("tree", 10.0), ("sequences", 10 * gain)):
            world.add(
                "parallel_decoding", latency, mode=f"{layout}_based", tree_layout=layout, batch_size=batch, **cells
            )
    world.audit += audit_rows()
    return world


def _drafting(world: World, prompts: str, cells: Mapping[str, Any]) -> None:
    """Tables 1 to 3 on one prompt set."""
    for decoding, top1, top5, gain in (("greedy", 0.66, 0.86, 1.35), ("stochastic", 0.55, 0.97, 1.33)):
        common = {"prompt_set": prompts, "decoding": decoding, **cells}
        for width in range(1, 6):
            for place in (1, 3) if width > 1 else ("",):
                tokens = 2 * (1 + (gain - 1) * (width - 1) / 4)
                mode = f"{decoding}_width_{width}_{place}"
                world.add("tree_width", tokens=tokens, mode=mode, tree_width=width, branching_step=place, **common)
        row = world.add("rank_success", mode=decoding, tree_width=5, **common)
        for k in range(1, 6):
            rate = top1 + (top5 - top1) * (k - 1) / 4
            world.rates.append(
                row | {"k": k, "num_tried": 500, "success_rate": rate, "ci_low": rate - 0.02, "ci_high": rate + 0.02}
            )
    for place in (1, 3):
        for verifier, tokens in (("sampler_match", 1.8), ("mss", 1.8 * 1.27)):
            mode = f"{verifier}_{place}"
            drawn = {"decoding": "stochastic", "branching_step": place, "verifier": verifier, "mode": mode}
            world.add("sampling", tokens=tokens, prompt_set=prompts, **cells | drawn)


def audit_rows() -> list[Row]:
    """An audit in which all holds."""
    common = {"verifier": "mss", "contract": "iid", "temperature": 1}
    rows = [
        {"check": "certificate", "num_outcomes": 500, "total_variation": 2e-16, "verdict": "lossless"},
        {"check": "certificate", "contract": "top_k", "num_outcomes": 0, "verdict": "refused"},
        {"check": "target's distribution", "p_value": 0.4, "verdict": "holds"},
        {"check": "negative control", "num_outcomes": 20, "total_variation": 0.4, "verdict": "caught"},
    ]
    return [common | row for row in rows]


def write_platform(folder: Path, platform: Mapping[str, Any]) -> Path:
    """A platform file."""
    path = folder / "platform.yaml"
    path.write_text(yaml.safe_dump(dict(platform)))
    return path


def read(path: Path) -> dict[str, dict[str, str]]:
    """A claims.csv by id."""
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
