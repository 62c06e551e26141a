"""Time, messages and bytes of a step on 1 to 8 ranks, on the embedded LLaMA pair.

    python -m benchmarks.parallel_cost --output build/parallel_cost.json

Every row is a job of its own, `treespec run` with one process per rank started by torchrun over gloo; messages and
bytes are the engine's own counters, of all ranks together. Times are medians over the repeats with a 95 % bootstrap
interval, warm-up and loading left out. Where there are more ranks than cores they time the operating system's scheduler
and not the engine: such rows are marked, and the inflated pair, which is there to be timed, has none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treespec.config import Inflation
from treespec.log import say
from treespec.serving.comparison import median_interval

TENSOR_DEGREES, PIPELINE_DEGREES = (1, 2, 4), (1, 2)
INFLATION = Inflation(width_factor=4, num_layers=8)  # 105M parameters, as on the platform laptop
MODES: dict[str, tuple[int, ...]] = {"incremental": (), "tree": (2, 2, 1)}


def main() -> int:
    """Run every placement, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--draft", type=Path, default=Path("models/embedded/llama/draft"))
    parser.add_argument("--prompts", type=Path, default=Path("prompts/mixed.json"))
    parser.add_argument("--num-prompts", type=int, default=4)
    parser.add_argument("--num-tokens", type=int, default=32)
    parser.add_argument("--num-repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, action="append", help="default: 1 and 4")
    parser.add_argument("--max-ranks", type=int, default=8)
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    report = measure(args)
    print(table(report))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The rows of both pairs."""
    num_cores = len(os.sched_getaffinity(0))
    degrees = [(tp, pp) for pp in PIPELINE_DEGREES for tp in TENSOR_DEGREES if tp * pp <= args.max_ranks]
    rows: list[dict[str, Any]] = []
    environment: dict[str, Any] = {}
    for inflation in (None, INFLATION):
        for tensor, pipeline in degrees:
            if inflation is not None and tensor * pipeline > num_cores:
                continue
            say(f"{'inflated' if inflation else 'as trained'}, tp {tensor} x pp {pipeline}")
            for meta in _metas(_job(args, tensor, pipeline, inflation)):
                rows.append(_row(meta, num_cores))
                environment = meta["environment"]
    settings = {name: getattr(args, name) for name in ("num_prompts", "num_tokens", "num_repeats")}
    return {"settings": settings, "num_cores": num_cores, "environment": environment, "rows": rows}


def _job(args: argparse.Namespace, tensor: int, pipeline: int, inflation: Inflation | None) -> dict[str, Any]:
    scenarios = [
        {
            "name": f"{mode}-{batch_size}",
            "mode": mode,
            "expansion": expansion,
            "prompts": str(args.prompts.resolve()),
            "num_prompts": max(args.num_prompts, batch_size),
            "max_requests_per_batch": batch_size,
            "max_new_tokens": args.num_tokens,
            "ignore_eos": True,
            "num_repeats": args.num_repeats,
        }
        for batch_size in args.batch_size or [1, 4]
        for mode, expansion in MODES.items()
    ]
    placement = {
        "name": "parallel-cost",
        "target": {"path": str(args.target.resolve()), "inflation": inflation and inflation.model_dump()},
        "drafts": [{"path": str(args.draft.resolve())}],
        "num_threads": max(1, len(os.sched_getaffinity(0)) // (tensor * pipeline)),
        "tensor_parallel_degree": tensor,
        "pipeline_parallel_degree": pipeline,
        "rank_timeout_s": 300,
    }
    return {"placement": placement, "scenarios": scenarios}


def _metas(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a job in a folder of its own; the meta file of every scenario, in order."""
    with tempfile.TemporaryDirectory() as folder:
        path, raw = Path(folder) / "job.json", Path(folder) / "raw"
        path.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "treespec", "run", "--config", str(path), "--output-dir", str(raw)]
        subprocess.run(command, check=True)
        names = [scenario["name"] for scenario in job["scenarios"]]
        return [json.loads((raw / f"{name}.meta.json").read_text(encoding="utf-8")) for name in names]


def _row(meta: dict[str, Any], num_cores: int) -> dict[str, Any]:
    placement, scenario, repeats = meta["config"]["placement"], meta["config"]["scenario"], meta["repeats"]
    steps, tokens = (np.array([entry[key] for entry in repeats]) for key in ("num_target_steps", "num_output_tokens"))
    ms = np.array([entry["wall_us"] for entry in repeats]) / 1000 / steps
    low, high = median_interval(ms)
    messages, num_bytes = (
        np.array([_total(entry["traffic"], key) for entry in repeats]) for key in ("messages", "bytes")
    )
    num_ranks = placement["tensor_parallel_degree"] * placement["pipeline_parallel_degree"]
    return {
        "target": meta["models"]["target"]["description"],
        "tensor_parallel_degree": placement["tensor_parallel_degree"],
        "pipeline_parallel_degree": placement["pipeline_parallel_degree"],
        "mode": scenario["mode"],
        "batch_size": scenario["max_requests_per_batch"],
        "ms_per_step": {"median": float(np.median(ms)), "low": low, "high": high, "repeats": ms.tolist()},
        "tokens_per_step": float(np.median(tokens / steps)),
        "bytes_per_step": float(np.median(num_bytes / steps)),
        "messages_per_step": float(np.median(messages / steps)),
        "messages_per_token": float(np.median(messages / tokens)),
        "traffic": [entry["traffic"] for entry in repeats],
        "times_the_scheduler": num_ranks > num_cores,
    }


def _total(traffic: dict[str, dict[str, dict[str, int]]], key: str) -> int:
    return sum(count[key] for count in traffic.get("all_ranks", {}).values())


def table(report: dict[str, Any]) -> str:
    """Markdown: a row per pair, degrees, batch size and mode."""
    settings = report["settings"]
    work = f"{settings['num_prompts']} prompts or one batch x {settings['num_tokens']} tokens"
    tree = ",".join(map(str, MODES["tree"]))
    lines = [
        f"{report['num_cores']} cores, gloo; {work}, {settings['num_repeats']} repeats; tree <{tree}>",
        "",
        "| target | tp x pp | batch | mode | ms per step | KB per step | messages per step | messages per token | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, _grouped(report["rows"]))])


def _grouped(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that are to be compared one below the other: the same target, batch size and mode."""
    keys = list(dict.fromkeys((row["target"], row["batch_size"], row["mode"]) for row in rows))
    return sorted(rows, key=lambda row: keys.index((row["target"], row["batch_size"], row["mode"])))


def _line(row: dict[str, Any]) -> str:
    ms = row["ms_per_step"]
    cells = [
        row["target"],
        f"{row['tensor_parallel_degree']} x {row['pipeline_parallel_degree']}",
        str(row["batch_size"]),
        row["mode"],
        f"{ms['median']:.2f} [{ms['low']:.2f}, {ms['high']:.2f}]",
        f"{row['bytes_per_step'] / 1000:.1f}",
        f"{row['messages_per_step']:.1f}",
        f"{row['messages_per_token']:.1f}",
        "ranks > cores: times the scheduler" if row["times_the_scheduler"] else "",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
