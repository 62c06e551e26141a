"""Writes synthetic plans and records in the format of docs/records.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ARTIFACT_MODES = {"incremental": "incr_dec", "sequence": "sequence_specinfer", "tree": "tree_specinfer"}
PEER = "transformers"
ACCEPTED_PER_STEP = {PEER: 0, "incremental": 0, "sequence": 1, "tree": 2, "tree_auto": 3}
DRAFTED_PER_STEP = {PEER: 0, "incremental": 0, "sequence": 4, "tree": 8, "tree_auto": 60}


@dataclass(frozen=True)
class SyntheticScenario:
    """A scenario whose request ``p`` of repeat ``r`` takes ``step_us * (1 + p / 10) * (1 + r / 100)`` per step."""

    mode: str = "incremental"
    batch_size: int = 1
    size: str = "small"
    purpose: str = "measure"
    experiment: str = "server_gpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = "f" * 64
    target: str = "llama-105M"
    draft: str | None = "llama-draft"
    step_us: float = 1000.0
    num_prompts: int = 4
    num_repeats: int = 2
    num_steps: int = 6
    dtype: str = "float32"
    device: str = "cpu"
    cpu: str = "Example CPU @ 2.0GHz"
    commit: str | None = "0123456789abcdef"
    prompts: str = "prompts/mixed.json"
    streamed_bytes: int | None = None
    """Per step; None: the record tells nothing of offloading."""

    @property
    def name(self) -> str:
        """The scenario's name, as the artifact's with its settings appended."""
        settings, mode_name = dict(self.settings), ARTIFACT_MODES.get(self.mode, self.mode)
        own = f"server_{self.size}-{self.batch_size}_batchsize-{mode_name}"
        if self.experiment == "offloading":
            own = f"offloading_{self.size}_{self.batch_size}"
            settings = ({} if self.mode == "sequence" else {"mode": mode_name}) | settings
        return own + "".join(f"-{key}_{value}" for key, value in settings.items())

    def with_(self, **changes: Any) -> SyntheticScenario:
        """The same with changes."""
        return replace(self, **changes)

    def plan_entry(self) -> dict[str, Any]:
        """What a plan says of it, with a key that parsing does not know."""
        return {
            "scenario": self.name,
            "experiment": self.experiment,
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
            "placement": "one_rank",
        }

    def _planned_settings(self) -> dict[str, str]:
        is_named = self.experiment == "offloading" and self.mode != "sequence"
        return ({"mode": ARTIFACT_MODES.get(self.mode, self.mode)} if is_named else {}) | dict(self.settings)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of its ``.jsonl``."""
        pairs = [(repeat, prompt) for repeat in range(self.num_repeats) for prompt in range(self.num_prompts)]
        return [self._row(number, repeat, prompt) for number, (repeat, prompt) in enumerate(pairs)]

    def _row(self, number: int, repeat: int, prompt: int) -> dict[str, Any]:
        accepted = ACCEPTED_PER_STEP[self.mode]
        # Every mode generates the same tokens; a mode that accepts more needs fewer steps.
        num_tokens = self.num_steps * 6
        num_steps = num_tokens // (accepted + 1)
        latency_us = num_steps * self.step_us * (1 + prompt / 10) * (1 + repeat / 100)
        return {
            "repeat": repeat,
            "guid": 1000000 + number,
            "prompt_index": prompt,
            "num_prompt_tokens": 10 + prompt,
            "num_output_tokens": num_tokens,
            "output_token_ids": [100 * prompt + position for position in range(num_tokens)],
            "finish_reason": "max_new_tokens",
            "num_target_steps": num_steps + 1,
            "num_draft_tokens": num_steps * DRAFTED_PER_STEP[self.mode],
            "num_accepted_tokens": num_steps * accepted,
            "accepted_per_step": [accepted] * num_steps,
            "start_us": 5000.0,
            "first_token_us": 5000.0 + self.step_us,
            "finish_us": 5000.0 + latency_us,
            "latency_us": latency_us,
        }

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
            "config": {"placement": {"dtype": self.dtype}, "scenario": {"prompts": self.prompts}},
            "models": {"target": {**target, "num_parameters": 105_300_000, "sha256": "0" * 64}, "drafts": []},
            "environment": {"commit": self.commit, "device": self.device, "cpu": self.cpu, "num_threads": 2},
            "repeats": [repeat] * self.num_repeats,
            "started_at": "2025-01-01T00:00:00Z",
            "finished_at": "2025-01-01T00:01:00Z",
        } | told

    def write(self, raw_dir: Path, rows: list[dict[str, Any]] | None = None, **meta_changes: Any) -> None:
        """Write its record, with other rows or other entries of the ``.meta.json`` where given."""
        raw_dir.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row) for row in (self.rows() if rows is None else rows)]
        self.jsonl(raw_dir).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self.meta_json(raw_dir).write_text(json.dumps(self.meta() | meta_changes), encoding="utf-8")

    def write_failure(self, raw_dir: Path, error: str) -> None:
        """Write what a failed scenario leaves."""
        raw_dir.mkdir(parents=True, exist_ok=True)
        meta = {"format": 1, "scenario": self.name, "fingerprint": self.fingerprint, "status": "failed", "error": error}
        self.meta_json(raw_dir).write_text(json.dumps(meta), encoding="utf-8")

    def supersede(self, raw_dir: Path) -> None:
        """Move its record to ``superseded/`` as the engine does."""
        folder = raw_dir / "superseded"
        folder.mkdir()
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
    return [
        SyntheticScenario(mode=mode, batch_size=batch_size, size=size, step_us=STEP_US[mode] * (1 + batch_size / 8))
        for size in sizes
        for batch_size in batch_sizes
        for mode in ARTIFACT_MODES
    ]


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


def write_plan(path: Path, scenarios: list[SyntheticScenario]) -> Path:
    """Write a plan of the scenarios; returns its path."""
    path.write_text(json.dumps([scenario.plan_entry() for scenario in scenarios]), encoding="utf-8")
    return path
