"""What a step costs when weights come by: its time over the time of moving the same bytes and nothing else.

python -m benchmarks.offloading --target models/embedded/opt/target --inflate-layers 8 --source disk --reserve-mib 105
python -m benchmarks.offloading --target FOLDER --device cuda --dtype float16 --source host --reserve-mib 4096

Every round measures one after the other a plain move of as many bytes as a step streams (disk: the weight files read
from start to end into one buffer, pages dropped as they were read; host: a copy from pinned memory to the GPU) and a
step of each size, which is a forward pass over n tokens behind 64 cached ones. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch

from benchmarks.verify_cost import chain_pass
from treespec.config import Inflation, ModelRef, Placement, Quantisation, Scenario
from treespec.files import write_atomically
from treespec.metrics.environment import describe_environment
from treespec.model.offload.plan import OffloadPlan
from treespec.runner import ModelRunner
from treespec.serving.build import LoadedPlacement, load_placement

NUM_TOKENS = (1, 9, 21, 64)
CONTEXT = 64
CHUNK = 16 << 20
BOOTSTRAP_DRAWS = 2000


def main() -> int:
    """Measure, print the table, write the JSON."""
    args = _parser().parse_args()
    loaded = load_placement(_placement(args), [_scenario()])
    offloader = loaded.target.offloader
    assert offloader is not None and offloader.plan is not None
    if not offloader.plan.streamed_bytes:
        print("everything fits the budget: nothing is streamed")
        return 1
    move = _mover(loaded, offloader.plan)
    rounds = [_round(loaded.target_runner, move) for _ in range(args.rounds + 2)][2:]  # the first warm up
    report = {
        "target": loaded.target.description,
        "plan": offloader.plan.to_dict(),
        "environment": describe_environment(torch.__version__, args.device, torch.get_num_threads()),
        "gb_per_s": float(np.median([offloader.plan.streamed_bytes / item["move"] for item in rounds]) / 1e9),
        "rows": [_row(n, rounds) for n in NUM_TOKENS],
    }
    _print(report, args)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.output, json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/opt/target"))
    parser.add_argument("--inflate-width", type=int, choices=[1, 4, 16], default=4)
    parser.add_argument("--inflate-layers", type=int, help="none: the checkpoint as it is")
    parser.add_argument("--quantise", type=int, choices=[8, 4])
    parser.add_argument("--source", choices=["host", "disk"], default="disk")
    parser.add_argument("--reserve-mib", type=float, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--converted", type=Path, default=Path("build/converted"))
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    return parser


def _placement(args: argparse.Namespace) -> Placement:
    inflation = Inflation(width_factor=args.inflate_width, num_layers=args.inflate_layers)
    target = ModelRef(
        path=args.target,
        inflation=inflation if args.inflate_layers else None,
        quantisation=Quantisation(bits=args.quantise) if args.quantise else None,
    )
    return Placement(
        name="offloading",
        target=target,
        device=args.device,
        dtype=args.dtype,
        max_tree_nodes=max(NUM_TOKENS),
        max_sequence_length=2 * CONTEXT,
        offload=args.source,
        offload_reserve_mib=args.reserve_mib,
        converted_models=args.converted,
    )


def _scenario() -> Scenario:
    return Scenario(name="steps", mode="incremental", prompts=Path("none"), max_requests_per_batch=1)


def _mover(loaded: LoadedPlacement, plan: OffloadPlan) -> Callable[[], None]:
    """Moves as many bytes as a step streams, by the plainest means."""
    if plan.source == "host":
        there = torch.empty(plan.slot_bytes, dtype=torch.uint8, device=loaded.target.decoder.device)
        here = torch.empty(plan.slot_bytes, dtype=torch.uint8, pin_memory=there.is_cuda)
        return lambda: _copy(here, there, plan.streamed_bytes)
    assert loaded.target.folder is not None
    files = sorted(loaded.target.folder.glob("*.safetensors"))
    buffer = mmap.mmap(-1, CHUNK)
    return lambda: _read(files, memoryview(buffer), plan.streamed_bytes)


def _copy(here: torch.Tensor, there: torch.Tensor, num_bytes: int) -> None:
    for start in range(0, num_bytes, len(here)):
        part = min(len(here), num_bytes - start)
        there[:part].copy_(here[:part], non_blocking=True)
    _wait_for(there.device)


def _read(files: list[Path], buffer: memoryview, num_bytes: int) -> None:
    """Sequentially and cold."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            offset = 0
            while num_bytes > 0 and (done := file.readinto(buffer[: min(CHUNK, num_bytes)])):
                # As streaming does: pages that are given back at once need not be found anew.
                os.posix_fadvise(file.fileno(), offset, done, os.POSIX_FADV_DONTNEED)
                offset, num_bytes = offset + done, num_bytes - done
    assert num_bytes == 0, "the files are smaller than what a step streams"


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _round(runner: ModelRunner, move: Callable[[], None]) -> dict[str, float]:
    """Seconds of a move and of a step of every size; two steps of a size, of which the second counts.

    The first one finds slots that were filled while something else was measured.
    """
    measured = {"move": _seconds(move)}
    region = runner.allocator.admit()
    chain_pass(runner, region, 0, CONTEXT)
    runner.commit([(region, range(CONTEXT))])
    for n in NUM_TOKENS:
        for _ in range(2):
            measured[str(n)] = _seconds(lambda n=n: chain_pass(runner, region, CONTEXT, n))  # type: ignore[misc]
            runner.commit([(region, [])])
    runner.reset()
    return measured


def _seconds(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _row(n: int, rounds: list[dict[str, float]]) -> dict[str, Any]:
    ratios = np.array([item[str(n)] / item["move"] for item in rounds])
    draws = np.random.default_rng(0).integers(0, len(ratios), size=(BOOTSTRAP_DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    ms = float(np.median([item[str(n)] for item in rounds]) * 1000)
    return {"n": n, "ms": ms, "ratio": float(np.median(ratios)), "low": float(low), "high": float(high)}


def _print(report: dict[str, Any], args: argparse.Namespace) -> None:
    plan = report["plan"]
    print(
        f"{report['target']}; {args.dtype} on {args.device}, budget {args.reserve_mib:g} MiB, from {args.source}: "
        f"{plan['streamed_bytes'] / 1e6:.1f} MB come by per step, {plan['resident_bytes'] / 1e6:.1f} MB stay; moving "
        f"alone {report['gb_per_s']:.2f} GB/s; {args.rounds} rounds, {torch.get_num_threads()} threads\n"
    )
    print("| tokens | ms per step (median) | over moving its bytes [95 %] |\n|---|---|---|")
    for row in report["rows"]:
        print(f"| {row['n']} | {row['ms']:.1f} | {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |")


if __name__ == "__main__":
    raise SystemExit(main())
