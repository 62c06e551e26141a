"""Incremental, sequence and tree decoding of any two model folders, on the same prompts, interleaved in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treespec.config import RunConfig, Scenario, validate_run_config
from treespec.config.run import UNFILLED_BATCH
from treespec.errors import ConfigError
from treespec.metrics.environment import describe_environment
from treespec.model.spec import read_config
from treespec.model.tokenizers.text import TextTokenizer
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.limits import require_prompt_positions
from treespec.serving.passes import ServedPass, comparison_groups, interleaved, serve_pass, warm_up
from treespec.serving.progress import Progress
from treespec.serving.prompts import encode_prompts

BOOTSTRAP_DRAWS = 2000
CONFIDENCE = 0.95
BASELINE = "incremental"
MAX_TREE_NODES = 64


@dataclass(frozen=True)
class ComparisonSettings:
    """What to compare; the expansions are those of a scenario."""

    target: Path
    draft: Path
    prompts: Sequence[str]
    prompts_from: str  # for errors and the report
    batch_sizes: tuple[int, ...] = (1, 4)
    sequence: tuple[int, ...] = (1,) * 8
    tree: tuple[int, ...] = (1, 1, 3, 1, 1, 1, 1, 1)
    dtype: str = "float32"
    device: str = "cpu"
    num_threads: int | None = None
    max_new_tokens: int = 64
    num_repeats: int = 3


@dataclass(frozen=True)
class Divergence:
    """Where a mode's tokens first differ from incremental decoding's."""

    prompt_index: int
    token_index: int
    incremental_token_id: int | None
    token_id: int | None


@dataclass(frozen=True)
class ComparisonRow:
    """One mode at one batch size. Ratios are incremental over this mode, paired by prompt and repeat."""

    batch_size: int
    mode: str
    expansion: tuple[int, ...]
    ms_per_token: float  # median over requests and repeats: latency / tokens generated
    speedup: float  # median of the paired ratios
    speedup_low: float | None  # 95 % interval of that median; None: one sample has none
    speedup_high: float | None
    tokens_per_step: float  # emitted per decoding step
    divergence: Divergence | None


@dataclass(frozen=True)
class Comparison:
    """The rows and what they were measured on."""

    target: str
    draft: str
    num_prompts: int
    settings: dict[str, Any]
    environment: dict[str, Any]
    rows: tuple[ComparisonRow, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every mode generated what incremental decoding did."""
        return all(row.divergence is None for row in self.rows)


def run_comparison(settings: ComparisonSettings) -> Comparison:
    """Load both models once and measure every mode at every batch size. Raises TreespecError."""
    _require_full_batches(settings)
    for folder in (settings.target, settings.draft):
        read_config(folder)  # a mistyped path is told as such, before anything else is missed in it
    tokenizer = TextTokenizer.load(settings.target)
    prompts = encode_prompts(settings.prompts, tokenizer, settings.prompts_from)
    require_prompt_positions((settings.target, settings.draft), prompts, settings.max_new_tokens, settings.prompts_from)
    longest = max(map(len, prompts))
    config = _run_config(settings, longest + settings.max_new_tokens)
    loaded = load_placement(config.placement, config.scenarios)
    progress = Progress(sum(scenario.num_repeats for scenario in config.scenarios))
    rows: list[ComparisonRow] = []
    for group in comparison_groups(config.scenarios):
        rows += _measure_group(group, loaded, prompts, progress)
    assert loaded.draft is not None
    plain = {key: value for key, value in asdict(settings).items() if key not in ("target", "draft", "prompts")}
    device = torch.cuda.get_device_name() if settings.device == "cuda" else "cpu"
    environment = describe_environment(torch.__version__, device, torch.get_num_threads())
    return Comparison(
        loaded.target.description, loaded.draft.description, len(prompts), plain, environment, tuple(rows)
    )


def _require_full_batches(settings: ComparisonSettings) -> None:
    if len(settings.prompts) < max(settings.batch_sizes):
        raise ConfigError(
            UNFILLED_BATCH,
            where=settings.prompts_from,
            received=f"{len(settings.prompts)} prompts for --batch-size {max(settings.batch_sizes)}",
            allowed=f"batch sizes up to {len(settings.prompts)}",
            fix="more prompts, or a smaller --batch-size",
        )


def _run_config(settings: ComparisonSettings, max_sequence_length: int) -> RunConfig:
    expansions = {BASELINE: (), "sequence": settings.sequence, "tree": settings.tree}
    scenarios = [
        {
            "name": f"{mode}-{batch_size}",
            "mode": mode,
            "expansion": expansion,
            "prompts": settings.prompts_from,
            "max_requests_per_batch": batch_size,
            "max_new_tokens": settings.max_new_tokens,
            "ignore_eos": True,
            "num_repeats": settings.num_repeats,
        }
        for batch_size in settings.batch_sizes
        for mode, expansion in expansions.items()
    ]
    placement = {
        "name": "compare",
        "target": {"path": settings.target},
        "drafts": [{"path": settings.draft}],
        "dtype": settings.dtype,
        "device": settings.device,
        "num_threads": settings.num_threads,
        "max_sequence_length": max_sequence_length,
        "max_tree_nodes": MAX_TREE_NODES,
    }
    return validate_run_config({"placement": placement, "scenarios": scenarios}, where="treespec compare")


def _measure_group(
    group: Sequence[Scenario], loaded: LoadedPlacement, prompts: list[list[int]], progress: Progress
) -> list[ComparisonRow]:
    served: dict[str, list[ServedPass]] = {scenario.mode: [] for scenario in group}
    for scenario in group:
        warm_up(loaded, scenario, prompts)
    for repeat, scenario in interleaved(group):
        served[scenario.mode].append(serve_pass(loaded, scenario, prompts))
        progress.advance(f"{scenario.mode}, batch {scenario.max_requests_per_batch}, repeat {repeat + 1}")
    return [_row(scenario, served[scenario.mode], served[BASELINE]) for scenario in group]


def _row(scenario: Scenario, passes: Sequence[ServedPass], baseline: Sequence[ServedPass]) -> ComparisonRow:
    ms, baseline_ms = _ms_per_token(passes), _ms_per_token(baseline)
    low, high = interval_of_sample(baseline_ms / ms)
    steps = sum(len(profile.accepted_per_step) for served in passes for profile in served.profiles)
    tokens = sum(served.totals.num_output_tokens for served in passes)
    return ComparisonRow(
        batch_size=scenario.max_requests_per_batch,
        mode=scenario.mode,
        expansion=scenario.expansion,
        ms_per_token=float(np.median(ms)),
        speedup=float(np.median(baseline_ms / ms)),
        speedup_low=low,
        speedup_high=high,
        tokens_per_step=tokens / steps,
        divergence=_first_divergence(passes, baseline[0]),
    )


def _ms_per_token(passes: Sequence[ServedPass]) -> np.ndarray:
    """Per repeat and prompt, in this order: latency over tokens generated, in milliseconds."""
    return np.array(
        [
            profile.latency_us / 1000 / len(request.output_token_ids)
            for served in passes
            for request, profile in zip(served.requests, served.profiles, strict=True)
        ]
    )


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the median, seeded."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, size=(BOOTSTRAP_DRAWS, len(values))), axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def interval_of_sample(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """The same for any number of values; a single one says nothing about spread."""
    return median_interval(values) if len(values) > 1 else (None, None)


def _first_divergence(passes: Sequence[ServedPass], baseline: ServedPass) -> Divergence | None:
    for served in passes:
        for index, (request, expected) in enumerate(zip(served.requests, baseline.requests, strict=True)):
            ours, theirs = request.output_token_ids, expected.output_token_ids
            if ours != theirs:
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
                at = min(len(ours), len(theirs)) if at is None else at
                return Divergence(index, at, _entry(theirs, at), _entry(ours, at))
    return None


def _entry(token_ids: Sequence[int], index: int) -> int | None:
    return token_ids[index] if index < len(token_ids) else None
