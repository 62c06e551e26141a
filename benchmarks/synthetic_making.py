"""What making a synthetic matrix in memory costs over copying one of its size, interleaved, on one thread.

python -m benchmarks.synthetic_making
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from treespec.model.synthetic.noise import NoisePool

ROWS, COLUMNS = 11008, 4096  # of LLaMA-7B's FFN
ROUNDS = 21


def main() -> int:
    """Measure and print a line."""
    torch.set_num_threads(1)
    pool, numbers = NoisePool(0, "benchmark", torch.float16), np.arange(ROWS)
    source = torch.empty(ROWS, COLUMNS, dtype=torch.float16).uniform_()
    ways: dict[str, Callable[[], Tensor]] = {
        "made": lambda: pool.rows("model.layers.9.mlp.up_proj.weight", numbers, slice(0, COLUMNS), 0.5),
        "copied": source.clone,
    }
    rounds = [{name: _seconds(way) for name, way in ways.items()} for _ in range(ROUNDS + 1)][1:]
    ratios = [item["made"] / item["copied"] for item in rounds]
    low, high = np.quantile(ratios, [0.1, 0.9])
    speeds = {name: source.nbytes / float(np.median([item[name] for item in rounds])) / 1e9 for name in ways}
    print(f"{source.nbytes / 1e6:.0f} MB: made {speeds['made']:.2f} GB/s, copied {speeds['copied']:.2f} GB/s")
    print(f"time over copying: {np.median(ratios):.2f}, 80 % of rounds within [{low:.2f}, {high:.2f}]")
    return 0


def _seconds(way: Callable[[], Tensor]) -> float:
    started = time.monotonic()
    kept = way()
    seconds = time.monotonic() - started
    del kept
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
