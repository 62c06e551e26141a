"""Writes synthetic plans and records in the formats of docs/records.md and data_parsing/README.md.

For tests of whatever reads records or the tables made from them: ``write_results(folder, server_grid())`` leaves
``folder/plan/<table>.json`` and complete records in ``folder/raw``, which ``csv_tables(folder)`` turns into CSV files.
A scenario of any other experiment is a ``SyntheticScenario(mode=..., experiment=..., expansion=...)``; every field
that a test does not set has a value that fits.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

import data_parsing.cli

ARTIFACT_MODES = {"incremental": "incr_dec", "sequence": "sequence_specinfer", "tree": "tree_specinfer"}
PEER = "transformers"
TABLES = {"server_gpu": "server"}
"""Experiment -> its long table, where they are not named alike."""
ACCEPTED_PER_STEP = {PEER: 0, "incremental": 0, "sequence": 1, "tree": 2, "tree_auto": 3}
EXPANSIONS = {"sequence": (1, 1, 1, 1), "tree": (2, 1, 1, 1)}
AUTO_TREE = {"kind": "ssm", "model": 0, "tree": "auto", "expansion": [], "num_nodes": 60, "selection": "top_k"}
COSTS = {
    "target": {"rows": [1, 4, 16], "ms": [10.0, 11.0, 20.0]},
    "draft_level": {"rows": [1, 8], "ms": [0.5, 1.2]},
    "overhead_ms": 0.0,
}


DRAFT_DESCRIPTION = "embedded LLaMA draft, 0.664M parameters"


@dataclass(frozen=True)
class SyntheticScenario:
    """A scenario whose request ``p`` of repeat ``r`` takes ``step_us * (1 + p / 10) * (1 + r / 100)`` per step.

    Every step accepts ``accepted_per_step`` drafted tokens; the s-th step takes the s-th proposal at every depth,
    counted round.
    """

    mode: str = "incremental"
    batch_size: int = 1
    size: str = "small"
    purpose: str = "measure"
    experiment: str = "server_gpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = "f" * 64
    target: str = "llama-105M"
    draft: str | None = "llama-draft"
    expansion: tuple[int, ...] | None = None
    """None: as the mode has it."""
    selection: str = "top_k"
    accepted_per_step: int | None = None
    """None: as the mode has it."""
    temperature: float = 0.0
    verifier: str = "auto"
    tree_layout: str = "tree"
    prompt_set: str | None = None
    placement: str = "one_rank"
    step_us: float = 1000.0
    num_prompts: int = 4
    num_repeats: int = 2
    num_steps: int = 6
    categories: tuple[str | None, ...] = (None,)
    """Of the prompts, in turn."""
    costs: Mapping[str, Any] = field(default_factory=dict)
    """By number of the draft model, such as {"0": COSTS}."""
    dtype: str = "float32"
    device: str = "cpu"
    cpu: str = "Example CPU @ 2.0GHz"
    commit: str | None = "0123456789abcdef"
    prompts: str = "prompts/mixed.json"
    streamed_bytes: int | None = None
    """Per step; None: the record tells nothing of offloading."""

    @property
    def table(self) -> str:
        """The long table of its experiment."""
        return TABLES.get(self.experiment, self.experiment)

    @property
    def name(self) -> str:
        """The scenario's name, as the artifact's with its settings appended."""
        settings = self._planned_settings()
        own = f"{self.table}_{self.size}-{self.batch_size}_batchsize-{ARTIFACT_MODES.get(self.mode, self.mode)}"
        if self.experiment == "offloading":
            own = f"offloading_{self.size}_{self.batch_size}"
        if self.prompt_set is not None:
            settings |= {"prompts": self.prompt_set}
        return own + "".join(f"-{key}_{value}" for key, value in settings.items())

    @property
    def widths(self) -> tuple[int, ...]:
        """Its expansion; empty without a fixed tree."""
        return EXPANSIONS.get(self.mode, ()) if self.expansion is None else self.expansion

    @property
    def num_accepted(self) -> int:
        """Drafted tokens that every step accepts."""
        return ACCEPTED_PER_STEP.get(self.mode, 2) if self.accepted_per_step is None else self.accepted_per_step

    @property
    def prompt_file(self) -> str:
        """Its prompts: those of its settings, else ``prompts``."""
        return f"prompts/{self.settings['prompts']}.json" if "prompts" in self.settings else self.prompts

    def with_(self, **changes: Any) -> SyntheticScenario:
        """The same with changes."""
        return replace(self, **changes)

    def plan_entry(self) -> dict[str, Any]:
        """What a plan says of it, with a key that parsing does not know."""
        return {
            "scenario": self.name,
            "experiment": self.experiment,
            "placement": self.placement,
            "size": self.size,
            "purpose": self.purpose,
            "mode": self.mode,
            "batch_size": self.batch_size,
            "fingerprint": self.fingerprint,
            "target": self.target,
            "draft": self.draft,
            "settings": self._planned_settings(),
            "quantisation": self.settings.get("quantisation"),
            "offload": "disk" if self.experiment == "offloading" and "offload" not in self.settings else None,
            "prompt_set": self.prompt_set,
            "prompts": self.prompt_file,
            "max_new_tokens": int(self.settings.get("max_new_tokens", 128)),
            "sampling": {"temperature": self.temperature, "seed": 0},
            "verifier": self.verifier,
            "tree_layout": self.tree_layout,
            "dtype": self.dtype,
            "num_repeats": self.num_repeats,
        } | self._planned_drafting()

    def _planned_settings(self) -> dict[str, str]:
        is_named = self.experiment == "offloading" and self.mode != "sequence"
        return ({"mode": ARTIFACT_MODES.get(self.mode, self.mode)} if is_named else {}) | dict(self.settings)

    def _planned_drafting(self) -> dict[str, Any]:
        """As the workflow writes it: top-k by an expansion alone, everything else by a drafter."""
        if self.mode == "tree_auto":
            return {"expansion": [], "drafters": [AUTO_TREE]}
        if self.selection == "top_k":
            return {"expansion": list(self.widths), "drafters": []}
        drafter = {"kind": "ssm", "tree": "expansion", "expansion": list(self.widths), "selection": self.selection}
        return {"expansion": [], "drafters": [drafter]}

    def rows(self) -> list[dict[str, Any]]:
        """The rows of its ``.jsonl``."""
        pairs = [(repeat, prompt) for repeat in range(self.num_repeats) for prompt in range(self.num_prompts)]
        return [self._row(number, repeat, prompt) for number, (repeat, prompt) in enumerate(pairs)]

    def _row(self, number: int, repeat: int, prompt: int) -> dict[str, Any]:
        # Every mode generates the same tokens; a mode that accepts more needs fewer steps.
        num_tokens = self.num_steps * 6
        num_steps = num_tokens // (self.num_accepted + 1)
        latency_us = num_steps * self.step_us * (1 + prompt / 10) * (1 + repeat / 100)
        num_nodes = 60 if self.mode == "tree_auto" else sum(accumulate(self.widths, mul))
        offered, accepted = self._ranks(num_steps)
        return {
            "repeat": repeat,
            "guid": 1000000 + number,
            "prompt_index": prompt,
            "category": self.categories[prompt % len(self.categories)],
            "num_prompt_tokens": 10 + prompt,
            "num_output_tokens": num_tokens,
            "output_token_ids": [100 * prompt + position for position in range(num_tokens)],
            "finish_reason": "max_new_tokens",
            "num_target_steps": num_steps + 1,
            "num_draft_tokens": num_steps * num_nodes,
            "num_accepted_tokens": num_steps * self.num_accepted,
            "accepted_per_step": [0] + [self.num_accepted] * num_steps,  # the prompt's pass first
            "offered_by_depth_and_rank": offered,
            "accepted_by_depth_and_rank": accepted,
            "start_us": 5000.0,
            "first_token_us": 5000.0 + self.step_us,
            "finish_us": 5000.0 + latency_us,
            "latency_us": latency_us,
        }

    def _ranks(self, num_steps: int) -> tuple[list[list[int]], list[list[int]]]:
        """Offered and accepted by depth and rank: the reached depths are the accepted ones and the one after them."""
        widths = (1,) * 4 if self.mode == "tree_auto" else self.widths
        offered = [[num_steps] * width for width in widths[: self.num_accepted + 1]]
        accepted = [[0] * len(row) for row in offered]
        for step in range(num_steps):
            for row in accepted[: self.num_accepted]:
                row[step % len(row)] += 1
        return offered, accepted

    def meta(self) -> dict[str, Any]:
        """Its ``.meta.json``."""
        time_us = {"draft": 20.0, "build": 0.0, "forward": 50.0, "verify": 10.0, "commit": 15.0, "other": 5.0}
        repeat = {"wall_us": 100.0, "num_target_steps": 4, "num_output_tokens": 24, "time_us": time_us}
        told: dict[str, Any] = {}
        if self.streamed_bytes is not None:
            repeat["offload"] = {"num_units": 40, "num_bytes": 4 * self.streamed_bytes, "wait_us": 60.0}
            told["offload"] = {"source": "disk", "resident_bytes": 1000, "streamed_bytes": self.streamed_bytes}
        target = {"label": self.target, "description": "embedded LLaMA target, inflated to 105M parameters"}
        return {
            "format": 1,
            "scenario": self.name,
            "fingerprint": self.fingerprint,
            "status": "ok",
            "num_rows": self.num_prompts * self.num_repeats,
            "config": {"placement": {"dtype": self.dtype}, "scenario": {"prompts": self.prompt_file}},
            "models": {
                "target": {**target, "num_parameters": 105_300_000, "sha256": "0" * 64},
                "drafts": self._drafts(),
            },
            "environment": {"commit": self.commit, "device": self.device, "cpu": self.cpu, "num_threads": 2},
            "costs": dict(self.costs),
            "repeats": [repeat] * self.num_repeats,
            "started_at": "2025-01-01T00:00:00Z",
            "finished_at": "2025-01-01T00:01:00Z",
        } | told

    def _drafts(self) -> list[dict[str, Any]]:
        """Every draft model of the process, whether or not this scenario drafts."""
        label = self.draft or "llama-draft"
        return [] if self.mode == "transformers" else [{"label": label, "description": DRAFT_DESCRIPTION}]

    def write(self, raw_dir: Path, rows: list[dict[str, Any]] | None = None, **meta_changes: Any) -> None:
        """Write its record, with other rows or other entries of the ``.meta.json`` where given."""
        raw_dir.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row) for row in (self.rows() if rows is None else rows)]
        self.jsonl(raw_dir).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self.meta_json(raw_dir).write_text(json.dumps(self.meta() | meta_changes), encoding="utf-8")

    def write_failure(self, raw_dir: Path, error: str) -> None:
        """Write what a failed scenario leaves."""
        raw_dir.mkdir(parents=True, exist_ok=True)
        meta = self.meta() | {"status": "failed", "error": error, "num_rows": 0}
        self.meta_json(raw_dir).write_text(json.dumps(meta), encoding="utf-8")

    def supersede(self, raw_dir: Path) -> None:
        """Move its record to ``superseded/`` as the engine does."""
        (folder := raw_dir / "superseded").mkdir()
        for path in (self.jsonl(raw_dir), self.meta_json(raw_dir)):
            suffix = path.name.removeprefix(self.name)
            path.rename(folder / f"{self.name}.{self.fingerprint[:8]}{suffix}")

    def jsonl(self, raw_dir: Path) -> Path:
        """Path of its rows."""
        return raw_dir / f"{self.name}.jsonl"

    def meta_json(self, raw_dir: Path) -> Path:
        """Path of its ``.meta.json``."""
        return raw_dir / f"{self.name}.meta.json"


STEP_US = {"incremental": 1000.0, "sequence": 1200.0, "tree": 1500.0}


def server_grid(
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8), sizes: tuple[str, ...] = ("small",)
) -> list[SyntheticScenario]:
    """The server experiment: three modes per batch size, steps slower in larger batches."""
    grid = itertools.product(sizes, batch_sizes, ARTIFACT_MODES)
    return [SyntheticScenario(mode, b, size, step_us=STEP_US[mode] * (1 + b / 8)) for size, b, mode in grid]


def offloading_grid(
    batch_sizes: tuple[int, ...] = (1, 4), settings: tuple[dict[str, str], ...] = ({},), **changes: Any
) -> list[SyntheticScenario]:
    """The offloading experiment: four modes per batch size and placement, 3000 bytes streamed per step."""
    made = SyntheticScenario(experiment="offloading", target="opt-103M", streamed_bytes=3000).with_(**changes)
    return [
        made.with_(mode=mode, batch_size=batch_size, settings=own, step_us=STEP_US.get(mode, 1800.0))
        for own in settings
        for batch_size in batch_sizes
        for mode in (*ARTIFACT_MODES, "tree_auto")
    ]


def write_plan(path: Path, scenarios: Sequence[SyntheticScenario], table: str = "server") -> Path:
    """Write one plan file of the scenarios; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"table": table, "scenarios": [s.plan_entry() for s in scenarios]}), encoding="utf-8")
    return path


def write_plans(folder: Path, scenarios: Sequence[SyntheticScenario], tables: Sequence[str] = ()) -> list[Path]:
    """Write a plan file per long table: those of the scenarios, and ``tables`` even without any; returns the paths."""
    named = dict.fromkeys((*tables, *(scenario.table for scenario in scenarios)))
    return [write_plan(folder / f"{name}.json", [s for s in scenarios if s.table == name], name) for name in named]


def write_results(folder: Path, scenarios: Sequence[SyntheticScenario], tables: Sequence[str] = ()) -> list[Path]:
    """Write ``plan/<table>.json`` and a complete record of every scenario into ``raw/``; returns the plans' paths."""
    for scenario in scenarios:
        scenario.write(folder / "raw")
    return write_plans(folder / "plan", scenarios, tables)


def csv_tables(folder: Path) -> Path:
    """Parse ``plan/`` and ``raw/`` of a folder; returns the folder of the tables."""
    plans = sorted(map(str, (folder / "plan").glob("*.json")))
    words = ["--plan", *plans, "--raw-dir", str(folder / "raw"), "--output-dir", str(folder / "csv")]
    assert data_parsing.cli.main(words) == 0, "the plans are refused"
    return folder / "csv"
