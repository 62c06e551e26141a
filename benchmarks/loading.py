"""What loading a checkpoint costs over reading its files: cold page cache, own dtype, interleaved.

python -m benchmarks.loading [--model FOLDER] --output build/loading.json

Without --model a checkpoint of about 1 GB is made of the embedded LLaMA target (inflated to 20 layers, float32). Every
round reads the weight files plainly (one buffer, front to back), loads the model without reordering its matrices, and
loads it as a CPU run does, reordered (packed) for oneDNN. Peak memory is the kernel's mark, of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch

from treespec.config import Inflation, ModelRef
from treespec.files import write_atomically
from treespec.metrics.environment import describe_environment
from treespec.model.conversion.convert import ConversionSettings, convert
from treespec.model.loader import OpenedModel, open_model
from treespec.model.offload.keeper import Resident
from treespec.model.units import Unit
from treespec.ops.linear import DenseStorage, WeightStorage
from treespec.parallel.mesh import ParallelMesh

CHUNK = 16 << 20
BOOTSTRAP_DRAWS = 2000
CPU = torch.device("cpu")
SMALL = Path("models/embedded/llama/target")


class AsStored(Resident):
    """Keeps maps in the order that the checkpoint has."""

    def keep(self, unit: Unit) -> WeightStorage:
        """Dense, fused, not reordered."""
        return DenseStorage(unit.parts[0].read())


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; its weights are loaded in the dtype they have")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    parser.add_argument("--peak-of", choices=["as stored", "packed"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.model or _made(Path("build/loading_model"))
    if args.peak_of is not None:
        print(_peak(folder, args.peak_of))
        return 0
    files = sorted(folder.glob("*.safetensors"))
    num_bytes = sum(file.stat().st_size for file in files)
    ways: dict[str, Callable[[], object]] = {"plain read": lambda: _read(files)}
    ways |= {name: lambda name=name: _load(folder, name) for name in ("as stored", "packed")}  # type: ignore[misc]
    rounds = [{name: _cold_seconds(files, way) for name, way in ways.items()} for _ in range(args.rounds + 1)][1:]
    rows = [_row(name, rounds, num_bytes) for name in ways]
    for row in rows[1:]:
        row["peak_over_tensors_mib"] = (_peak_of(folder, row["way"]) - num_bytes) / 2**20
    environment = describe_environment(torch.__version__, "cpu", torch.get_num_threads())
    report = {"model": folder.name, "num_bytes": num_bytes, "environment": environment, "rows": rows}
    _print(report, args.rounds)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.output, json.dumps(report, indent=1) + "\n")
    return 0


def _made(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    inflation = Inflation(width_factor=4, num_layers=20)
    return convert(SMALL, ConversionSettings(inflation=inflation), folder)


def _cold_seconds(files: Sequence[Path], way: Callable[[], object]) -> float:
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.monotonic()
    kept = way()
    seconds = time.monotonic() - started
    del kept
    return seconds


def _read(files: Sequence[Path]) -> None:
    buffer = memoryview(mmap.mmap(-1, CHUNK))
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _dtype(opened: OpenedModel) -> torch.dtype:
    """Of the first tensor that the checkpoint holds."""
    from treespec.model.checkpoint import Checkpoint

    return next(iter(opened.family.read_weights(opened.spec, Checkpoint(opened.ref.path)).values())).dtype


def _load(folder: Path, way: str) -> object:
    opened = open_model(ModelRef(path=folder))
    dtype = _dtype(opened)
    spec, weights = opened.weights()
    keeper = AsStored(dtype, CPU) if way == "as stored" else Resident(dtype, CPU)
    return opened.family.decoder(spec, weights, dtype, CPU, ParallelMesh(), None, keeper)


def _peak_of(folder: Path, way: str) -> int:
    command = [sys.executable, "-m", "benchmarks.loading", "--model", str(folder), "--peak-of", way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _peak(folder: Path, way: str) -> int:
    """Bytes above what the process has before; a small model was loaded by then, so its code is in memory."""
    _load(SMALL, way)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the mark counts from here
    before = _status("VmRSS")
    kept = _load(folder, way)
    peak = _status("VmHWM") - before
    del kept
    return peak


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _row(name: str, rounds: Sequence[dict[str, float]], num_bytes: int) -> dict[str, Any]:
    ratios = np.array([item[name] / item["plain read"] for item in rounds])
    draws = np.random.default_rng(0).integers(0, len(ratios), size=(BOOTSTRAP_DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    seconds = float(np.median([item[name] for item in rounds]))
    ratio = float(np.median(ratios))
    return {
        "way": name,
        "seconds": seconds,
        "gb_per_s": num_bytes / seconds / 1e9,
        "ratio": ratio,
        "low": float(low),
        "high": float(high),
    }


def _print(report: dict[str, Any], rounds: int) -> None:
    print(f"{report['num_bytes'] / 1e9:.2f} GB, cold, {rounds} rounds, {torch.get_num_threads()} threads\n")
    print("| way | s (median) | GB/s | over plain read [95 %] | peak over the tensors, MiB |\n|---|---|---|---|---|")
    for row in report["rows"]:
        peak = f"{row['peak_over_tensors_mib']:.0f}" if "peak_over_tensors_mib" in row else ""
        ratio = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        print(f"| {row['way']} | {row['seconds']:.2f} | {row['gb_per_s']:.2f} | {ratio} | {peak} |")


if __name__ == "__main__":
    raise SystemExit(main())
