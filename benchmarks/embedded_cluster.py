"""How long the two embedded hosts take to start and to end, in this process.

python -m benchmarks.embedded_cluster --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import get_args

from cluster.embedded.requirements import Kind, obstacle
from cluster.embedded.testbed import EmbeddedCluster


def main() -> None:
    """Start and end each kind that this machine has, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| kind | up, s | down, s |\n|---|---|---|")
    for kind in get_args(Kind):
        if hindrance := obstacle(kind):
            print(f"| {kind} | not here: {hindrance} | |")
            continue
        ups, downs = zip(*(_times(kind) for _ in range(rounds)), strict=True)
        print(f"| {kind} | {_described(ups)} | {_described(downs)} |")


def _times(kind: Kind) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        hosts = EmbeddedCluster(Path(folder) / "hosts", kind=kind, say=lambda _: None)
        start = time.perf_counter()
        hosts.up()
        up = time.perf_counter()
        hosts.down()
        return up - start, time.perf_counter() - up


def _described(times: tuple[float, ...]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"


if __name__ == "__main__":
    main()
