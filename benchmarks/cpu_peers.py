"""Time per token of treespec's modes and of transformers' generate, interleaved prompt by prompt in one run.

    python -m benchmarks.cpu_peers --output build/cpu_peers.json

Same weights, prompts, lengths, threads and stopping rule; token ids are compared. Every method serves one batch, then
the next method serves it, in rotating order; ratios are paired by batch. transformers pads its batches and assists only
batches of one prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch

from benchmarks.peers import TRANSFORMERS_METHODS, TransformersPeer
from treespec.config import Inflation, ModelRef, Placement, Scenario
from treespec.metrics.environment import describe_environment
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.comparison import median_interval
from treespec.serving.passes import serve_pass
from treespec.serving.prompts import load_prompts

EXPANSIONS: dict[str, tuple[int, ...]] = {
    "incremental": (),
    "sequence 4": (1,) * 4,
    "sequence 8": (1,) * 8,
    "tree <1,1,3,1,1,1,1,1>": (1, 1, 3, 1, 1, 1, 1, 1),
    "tree <3,1,1,1>": (3, 1, 1, 1),
    "tree <2,2,1>": (2, 2, 1),
}
Generate = Callable[[Sequence[Sequence[int]]], list[list[int]]]


@dataclass(frozen=True)
class Settings:
    """What is timed."""

    target: Path
    draft: Path
    prompts: Path
    num_prompts: int
    num_tokens: int
    num_repeats: int
    num_threads: int
    inflation: Inflation | None


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--draft", type=Path, default=Path("models/embedded/llama/draft"))
    parser.add_argument("--prompts", type=Path, default=Path("prompts/mixed.json"))
    parser.add_argument("--num-prompts", type=int, default=16)
    parser.add_argument("--num-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--width-factor", type=int, choices=[1, 4, 16], default=4, help="inflation; 1 with --layers 4: none"
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, choices=[1, 4], action="append", help="default: both")
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    inflation = Inflation(width_factor=args.width_factor, num_layers=args.layers)
    settings = Settings(
        args.target, args.draft, args.prompts, args.num_prompts, args.num_tokens, args.repeats, args.threads, inflation
    )
    report = measure(settings, args.batch_size or [1, 4])
    print(table(report))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["equal"] for rows in report["batches"].values() for row in rows) else 1


def measure(settings: Settings, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """Load both implementations and time every method at every batch size."""
    scenario = _scenario(settings, (1,) * 8, max(batch_sizes))
    placement = Placement(
        name="cpu_peers",
        target=ModelRef(path=settings.target, inflation=settings.inflation),
        drafts=(ModelRef(path=settings.draft),),
        num_threads=settings.num_threads,
        max_sequence_length=256,
    )
    loaded = load_placement(placement, [scenario])
    prompts = load_prompts(scenario, loaded.target.tokenizer, placement.max_sequence_length)
    peer = TransformersPeer(settings.target, settings.draft, settings.inflation)
    batches = {
        str(size): _measure_batch(size, _methods(settings, loaded, peer, size), prompts, settings)
        for size in batch_sizes
    }
    import transformers

    environment = describe_environment(torch.__version__, "cpu", torch.get_num_threads())
    return {
        "target": loaded.target.description,
        "draft": loaded.draft.description if loaded.draft else "",
        "num_prompts": len(prompts),
        "num_tokens": settings.num_tokens,
        "num_repeats": settings.num_repeats,
        "environment": environment | {"transformers": transformers.__version__},
        "batches": batches,
    }


def _scenario(settings: Settings, expansion: tuple[int, ...], batch_size: int) -> Scenario:
    mode = "incremental" if not expansion else "sequence" if set(expansion) == {1} else "tree"
    return Scenario(
        name="cpu_peers",
        mode=mode,
        expansion=expansion,
        prompts=settings.prompts,
        num_prompts=settings.num_prompts,
        max_requests_per_batch=batch_size,
        max_new_tokens=settings.num_tokens,
        ignore_eos=True,
    )


def _methods(
    settings: Settings, loaded: LoadedPlacement, peer: TransformersPeer, batch_size: int
) -> dict[str, Generate]:
    """Name -> a function that serves prompts; transformers' incremental first, it is what the ratios refer to."""

    def theirs(method: str) -> Generate:
        def generate(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
            return peer.generate(method, prompts, settings.num_tokens)

        return generate

    def ours(expansion: tuple[int, ...]) -> Generate:
        scenario = _scenario(settings, expansion, batch_size)
        return lambda prompts: [r.output_token_ids for r in serve_pass(loaded, scenario, prompts).requests]

    names = TRANSFORMERS_METHODS if batch_size == 1 else ("incremental",)
    methods = {f"transformers {name}": theirs(name) for name in names}
    return methods | {f"treespec {name}": ours(expansion) for name, expansion in EXPANSIONS.items()}


def _measure_batch(
    batch_size: int, methods: dict[str, Generate], prompts: list[list[int]], settings: Settings
) -> list[dict[str, Any]]:
    """One row per method. A unit of work is one batch: as many prompts, in file order."""
    starts = range(0, len(prompts) - batch_size + 1, batch_size)
    units = [prompts[start : start + batch_size] for start in starts]
    names = list(methods)
    for name in names:  # warm-up
        methods[name](units[0])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    tokens: dict[str, list[list[int]]] = {name: [] for name in names}
    for repeat in range(settings.num_repeats):
        for index, unit in enumerate(units):
            shift = (repeat + index) % len(names)
            for name in [*names[shift:], *names[:shift]]:
                started = time.monotonic()
                rows = methods[name](unit)
                seconds[name].append(time.monotonic() - started)
                tokens[name] += rows if repeat == 0 else []
            print(
                f"batch {batch_size}: {repeat * len(units) + index + 1} of {len(units) * settings.num_repeats}",
                file=sys.stderr,
            )
    per_token = settings.num_tokens * len(units[0])
    baseline = names[0]
    assisted = [name for name in names if "assisted" in name]
    peers = {"incremental": baseline}
    if assisted:
        peers["best assisted"] = min(assisted, key=lambda name: float(np.median(seconds[name])))
    return [
        {
            "method": name,
            "ms_per_token": float(np.median(seconds[name])) * 1000 / per_token,
            "ms_per_token_min": min(seconds[name]) * 1000 / per_token,
            "ratios": {peer: _ratio(seconds[name], seconds[other]) for peer, other in peers.items()},
            "peers": peers,
            "num_units": len(seconds[name]),
            "equal": tokens[name] == tokens[baseline],
            "ms": [value * 1000 / per_token for value in seconds[name]],
        }
        for name in names
    ]


def _ratio(seconds: list[float], baseline: list[float]) -> dict[str, float]:
    """Median over the units of time over the peer's time, with its 95 % bootstrap interval."""
    ratios = np.array(seconds) / np.array(baseline)
    low, high = median_interval(ratios)
    return {"median": float(np.median(ratios)), "low": low, "high": high}


def table(report: dict[str, Any]) -> str:
    """Markdown: one table per batch size; ratios are time over the time of a transformers method."""
    environment = report["environment"]
    versions = f"torch {environment['torch']}, transformers {environment['transformers']}"
    work = f"{report['num_prompts']} prompts x {report['num_tokens']} tokens x {report['num_repeats']} repeats"
    lines = [
        f"{report['target']}; draft {report['draft']}; float32",
        f"{environment['cpu']}, {environment['num_threads']} threads, {versions}; {work}",
    ]
    for size, rows in report["batches"].items():
        peers = list(rows[0]["peers"])
        heads = " | ".join(f"x transformers {peer} [95 %]" for peer in peers)
        lines += [
            "",
            f"batch {size}",
            "",
            f"| method | ms/token (min) | {heads} | equal |",
            "|" + "---|" * (len(peers) + 3),
        ]
        for row in rows:
            ratios = " | ".join(_interval(row["ratios"][peer]) for peer in peers)
            time_ms = f"{row['ms_per_token']:.2f} ({row['ms_per_token_min']:.2f})"
            lines.append(f"| {row['method']} | {time_ms} | {ratios} | {'yes' if row['equal'] else 'NO'} |")
    return "\n".join(lines)


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


if __name__ == "__main__":
    raise SystemExit(main())
