"""What verifying n tokens costs over decoding one: t(n) / t(1), interleaved in one run.

python -m benchmarks.verify_cost --output build/verify_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch

from treespec.config import Inflation, ModelRef
from treespec.metrics.environment import describe_environment
from treespec.model.loader import load_model
from treespec.parallel.mesh import ParallelMesh
from treespec.runner import ForwardRow, ModelRunner

NUM_NODES = (1, 2, 4, 8, 16, 21, 32, 64)
BOOTSTRAP_DRAWS = 2000


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--width-factor", type=int, choices=[1, 4, 16], default=4)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--context", type=int, default=128, help="tokens in the cache")
    parser.add_argument("--rounds", type=int, default=60, help="passes per n; every round runs each n once")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    inflation = Inflation(width_factor=args.width_factor, num_layers=args.layers)
    ref = ModelRef(path=args.target, inflation=inflation)
    model = load_model(ref, getattr(torch, args.dtype), torch.device("cpu"), ParallelMesh())
    runner = ModelRunner(model.decoder, 1, args.context + max(NUM_NODES))
    times = measure(runner, args.context, args.rounds)
    rows = [_row(n, times[n], times[1]) for n in NUM_NODES]
    environment = describe_environment(torch.__version__, "cpu", torch.get_num_threads())
    print(f"{model.description}; {args.dtype}, context {args.context}, {args.rounds} rounds, {args.threads} threads\n")
    print("| n | ms (median) | t(n)/t(1) [95 %] |\n|---|---|---|")
    for row in rows:
        print(f"| {row['n']} | {row['ms']:.2f} | {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"target": model.description, "dtype": args.dtype, "environment": environment, "rows": rows}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(runner: ModelRunner, context: int, rounds: int) -> dict[int, list[float]]:
    """Seconds of one pass over a chain of n tokens after ``context`` cached ones, argmax on the host included."""
    region = runner.allocator.admit()
    chain_pass(runner, region, 0, context)
    runner.commit([(region, range(context))])
    times: dict[int, list[float]] = {n: [] for n in NUM_NODES}
    for turn in range(rounds + 2):
        for n in NUM_NODES:
            started = time.monotonic()
            chain_pass(runner, region, context, n)
            if turn >= 2:  # the first rounds warm up
                times[n].append(time.monotonic() - started)
            runner.commit([(region, [])])
    return times


def chain_pass(runner: ModelRunner, region: int, start: int, n: int) -> None:
    """A pass over a chain of n tokens behind ``start`` cached ones, argmax on the host included."""
    row = ForwardRow(
        lease=runner.allocator.lease(region, n),
        token_ids=np.arange(10, 10 + n),
        positions=np.arange(start, start + n),
        visible=np.tri(n, dtype=bool),
        num_logits=n,
    )
    runner.result(runner.submit([row])).logits_RV.argmax(dim=-1).tolist()


def _row(n: int, seconds: list[float], one: list[float]) -> dict[str, Any]:
    """Medians over medians: a pass is disturbed or not on its own, so rounds are resampled, not paired."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(one), size=(BOOTSTRAP_DRAWS, len(one)))
    ratios = np.median(np.array(seconds)[draws], axis=1) / np.median(np.array(one)[draws], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    ratio = float(np.median(seconds) / np.median(one))
    return {"n": n, "ms": float(np.median(seconds) * 1000), "ratio": ratio, "low": float(low), "high": float(high)}


if __name__ == "__main__":
    raise SystemExit(main())
