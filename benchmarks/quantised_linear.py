"""What a product with quantised weights costs beside the unquantised one, and what torch's own kernels cost.

    python -m benchmarks.quantised_linear --output build/quantised_linear.json

One map, random numbers; every storage takes its turn in every round, medians over the rounds. "expand" is the engine's
storage where no kernel fits. Torch's 8-bit kernel has one scale per row, so it computes something else: only its time
counts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch
from torch import Tensor

from treespec.config import Quantisation
from treespec.metrics.environment import describe_environment
from treespec.ops.linear import DenseStorage, WeightStorage, best_storage
from treespec.ops.quantised import quantise, unpacked_codes
from treespec.ops.quantised_storage import QuantisedStorage

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Multiply = Callable[[Tensor], Tensor]
INT8, INT4 = Quantisation(bits=8), Quantisation(bits=4)


def main() -> int:
    """Measure, print a table per dtype, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=int, default=4096)
    parser.add_argument("--inputs", type=int, default=1024)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 64, 256])
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tables = {}
    for name in args.dtypes:
        ways = _ways(args.outputs, args.inputs, DTYPES[name])
        tables[name] = {num_rows: _median_ms(ways, num_rows, args, DTYPES[name]) for num_rows in args.rows}
        _print(name, tables[name], args)
    if args.output:
        environment = describe_environment(torch.__version__, "cpu", args.threads)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"environment": environment, "map": [args.outputs, args.inputs], "median_ms": tables}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _ways(num_outputs: int, num_inputs: int, dtype: torch.dtype) -> dict[str, Multiply]:
    weight = torch.randn(num_outputs, num_inputs, generator=torch.Generator().manual_seed(0))
    storages: dict[str, WeightStorage] = {
        "dense": DenseStorage(weight.to(dtype)),
        "dense, packed": best_storage(weight.to(dtype)),
        "int8, expand": QuantisedStorage(quantise(weight, INT8), INT8),
        "int4, expand": QuantisedStorage(quantise(weight, INT4), INT4),
    }
    ways = {name: _product(storage) for name, storage in storages.items()}
    return ways | {"int4, torch": _torch_int4(weight, dtype), "int8, torch": _torch_int8(weight, dtype)}


def _product(storage: WeightStorage) -> Multiply:
    return lambda x: storage.multiply(x, None)


def _torch_int4(weight: Tensor, dtype: torch.dtype) -> Multiply:
    parts = quantise(weight, INT4)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpacked_codes(parts, INT4).int(), 8)
    steps = torch.stack((parts.scales.float(), parts.minima.float() + 8 * parts.scales.float()), dim=-1)
    steps_GO2 = steps.transpose(0, 1).to(dtype).contiguous()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, INT4.group_size, steps_GO2)


def _torch_int8(weight: Tensor, dtype: torch.dtype) -> Multiply:
    scales = (weight.abs().amax(1) / 127).to(dtype)
    codes = (weight / scales.float()[:, None]).round().to(torch.int8)
    return lambda x: torch.ops.aten._weight_int8pack_mm(x, codes, scales)


def _median_ms(
    ways: dict[str, Multiply], num_rows: int, args: argparse.Namespace, dtype: torch.dtype
) -> dict[str, float]:
    x = torch.randn(num_rows, args.inputs, generator=torch.Generator().manual_seed(1)).to(dtype)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.rounds + 2):
        for name, multiply in ways.items():
            started = time.monotonic()
            multiply(x)
            if turn >= 2:  # the first two warm up
                taken[name].append((time.monotonic() - started) * 1000)
    return {name: float(np.median(times)) for name, times in taken.items()}


def _print(dtype: str, table: dict[int, dict[str, float]], args: argparse.Namespace) -> None:
    names = list(next(iter(table.values())))
    print(f"{args.outputs} x {args.inputs}, {dtype}, {args.threads} threads, milliseconds (median of {args.rounds})\n")
    print(f"| rows | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for num_rows, row in table.items():
        print(f"| {num_rows} | {' | '.join(f'{row[name]:.2f}' for name in names)} |")
    print(flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
