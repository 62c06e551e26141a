"""What splitting a pipeline's pass into two micro-batches costs or saves: two stages of one thread each, interleaved.

python -m benchmarks.micro_batches --output build/micro_batches.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BATCH_SIZES = (2, 4, 8)
MODES: dict[str, list[int]] = {"incremental": [], "tree": [1, 1, 3, 1, 1, 1, 1, 1]}
SPLIT, WHOLE = 1, 1_000_000  # least tokens of a part


def scenarios() -> list[dict[str, Any]]:
    """Both modes at every batch size, on the same prompts."""
    common = {"prompts": "prompts/mixed.json", "num_prompts": 8, "max_new_tokens": 24, "ignore_eos": True}
    return [
        {"name": f"{mode}-{size}", "mode": mode, "expansion": expansion, "max_requests_per_batch": size} | common
        for size in BATCH_SIZES
        for mode, expansion in MODES.items()
    ]


def served(folder: Path, min_tokens: int) -> dict[str, int]:
    """Microseconds of every scenario, with parts of at least so many tokens; a new process each time."""
    placement = {
        "name": "pipeline",
        "target": {"path": "models/embedded/llama/target", "inflation": {"width_factor": 4, "num_layers": 8}},
        "drafts": [{"path": "models/embedded/llama/draft"}],
        "pipeline_parallel_degree": 2,
        "num_threads": 1,
        "micro_batch_tokens": min_tokens,
    }
    folder.mkdir()
    job = folder / "job.json"  # JSON is YAML
    job.write_text(json.dumps({"placement": placement, "scenarios": scenarios()}))
    words = ["-m", "treespec", "run", "--config", str(job), "--output-dir", str(folder)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    metas = {name: json.loads((folder / f"{name}.meta.json").read_text()) for name in (s["name"] for s in scenarios())}
    return {name: meta["repeats"][0]["wall_us"] for name, meta in metas.items()}


def described(ratios: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write every time to this JSON file")
    args = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.rounds):
            whole, split = (served(Path(folder) / f"{index}-{tokens}", tokens) for tokens in (WHOLE, SPLIT))
            rounds.append({"whole_us": whole, "split_us": split})
    print("| scenario | time with two parts / with one |\n|---|---|")
    for name in rounds[0]["whole_us"]:
        print(f"| {name} | {described([item['split_us'][name] / item['whole_us'][name] for item in rounds])} |")
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(rounds, indent=1) + "\n")


if __name__ == "__main__":
    main()
