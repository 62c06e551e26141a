"""Automatic trees against fixed ones and against no speculation, on the same prompts, interleaved in one run.

    python -m benchmarks.auto --output build/auto.json

A unit of work is one full batch of prompts, served by every mode in rotating order; ratios are incremental decoding's
wall time over the mode's, paired by unit. Before the first measured unit every mode serves some that are not counted:
that is what automatic trees learn from, as a server would. Drafts of the same target share the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import numpy as np
import torch
from torch import Tensor

from treespec.config import Inflation, ModelRef, Placement, Scenario, validate_run_config
from treespec.metrics.environment import describe_environment
from treespec.request import Request
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.comparison import median_interval
from treespec.serving.prompts import load_prompts
from treespec.tree import Proposals
from treespec.verify import VerifyResult

BASELINE = "incremental"
DRAFTING: dict[str, dict[str, Any]] = {
    "sequence 4": {"expansion": [1] * 4},
    "tree <2,2,1>": {"expansion": [2, 2, 1]},
    "tree <1,1,3,1,1,1,1,1>": {"expansion": [1, 1, 3, 1, 1, 1, 1, 1]},
    "best 8": {"tree": "best", "num_nodes": 8},
    "dynamic 8": {"tree": "dynamic", "num_nodes": 8, "max_depth": 5, "width": 2},
    "auto": {"tree": "auto", "num_nodes": 31},
}
WARM_UP_UNITS = 2


@dataclass
class Measured:
    """What one mode showed at one batch size, unit after unit."""

    seconds: list[float] = field(default_factory=list)
    token_ids: list[list[int]] = field(default_factory=list)
    nodes: Counter[int] = field(default_factory=Counter)  # trees of a request and decoding step, by nodes with the root
    num_tokens: int = 0

    def on_verified(
        self,
        requests: Sequence[Request],
        proposals: Sequence[Proposals],
        logits_TV: Tensor,  # noqa: ARG002
        results: Sequence[VerifyResult],  # noqa: ARG002
    ) -> None:
        """Count the trees of decoding steps; the pass that ends a prompt drafts nothing by design."""
        pairs = zip(requests, proposals, strict=True)
        self.nodes.update(len(item.tree) for request, item in pairs if request.output_token_ids)


def main() -> int:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = Path("models/embedded/llama")
    parser.add_argument("--target", type=Path, default=models / "target")
    parser.add_argument(
        "--draft", type=Path, action="append", help="default: the embedded one, before and after distilling"
    )
    parser.add_argument("--prompts", type=Path, default=Path("prompts/mixed.json"))
    parser.add_argument("--units", type=int, default=12, help="measured batches per batch size")
    parser.add_argument("--num-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--width-factor", type=int, choices=[1, 4, 16], default=4, help="inflation of the target")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, action="append", help="default: 1, 2, 4 and 8")
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    drafts = args.draft or [models / "draft", models / "draft-undistilled"]
    placement = Placement(
        name="auto",
        target=ModelRef(path=args.target, inflation=Inflation(width_factor=args.width_factor, num_layers=args.layers)),
        drafts=tuple(ModelRef(path=path) for path in drafts),
        device=args.device,
        num_threads=args.threads,
    )
    report = measure(placement, args.prompts, args.batch_size or [1, 2, 4, 8], args.units, args.num_tokens)
    print(table(report))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["equal"] for rows in report["batches"].values() for row in rows) else 1


def measure(
    placement: Placement, prompts_file: Path, batch_sizes: Sequence[int], num_units: int, num_tokens: int
) -> dict[str, Any]:
    """Load the models once and time every mode at every batch size."""
    scenarios = {size: _scenarios(placement, prompts_file, size, num_tokens) for size in batch_sizes}
    everything = [scenario for modes in scenarios.values() for scenario in modes.values()]
    validate_run_config({"placement": placement, "scenarios": everything}, where="benchmarks.auto")
    loaded = load_placement(placement, everything)
    prompts = load_prompts(everything[0], loaded.target.tokenizer, placement.max_sequence_length)
    return {
        "target": loaded.target.description,
        "drafts": {draft.name: loaded.drafts[index].description for index, draft in enumerate(placement.drafts)},
        "num_units": num_units,
        "num_tokens": num_tokens,
        "costs": {str(model): cost.to_dict() for model, cost in loaded.shapes.costs.items()},
        "environment": describe_environment(torch.__version__, placement.device, torch.get_num_threads()),
        "batches": {str(size): _measure_batch(loaded, scenarios[size], prompts, num_units) for size in batch_sizes},
    }


def _scenarios(placement: Placement, prompts: Path, batch_size: int, num_tokens: int) -> dict[str, Scenario]:
    modes: dict[str, list[dict[str, Any]]] = {BASELINE: []}
    for index, draft in enumerate(placement.drafts):
        modes |= {f"{draft.name}: {name}": [{"model": index} | shape] for name, shape in DRAFTING.items()}
    scenarios = {}
    for number, (name, drafters) in enumerate(modes.items()):
        is_chain = drafters and set(drafters[0].get("expansion", [0])) == {1}
        scenarios[name] = Scenario(
            name=f"batch-{batch_size}-mode-{number}",
            mode="incremental" if not drafters else "sequence" if is_chain else "tree",
            drafters=[{"kind": "ssm"} | drafter for drafter in drafters],
            prompts=prompts,
            max_requests_per_batch=batch_size,
            max_new_tokens=num_tokens,
            ignore_eos=True,
        )
    return scenarios


def _measure_batch(
    loaded: LoadedPlacement, modes: dict[str, Scenario], prompts: list[list[int]], num_units: int
) -> list[dict[str, Any]]:
    batch_size = modes[BASELINE].max_requests_per_batch
    names = list(modes)
    measured = {name: Measured() for name in names}
    for unit in range(-WARM_UP_UNITS, num_units):
        batch = [prompts[(unit * batch_size + index) % len(prompts)] for index in range(batch_size)]
        shift = unit % len(names)
        for name in [*names[shift:], *names[:shift]]:
            _serve(loaded, modes[name], batch, measured[name] if unit >= 0 else Measured())
        print(f"batch {batch_size}: unit {unit + 1} of {num_units}", file=sys.stderr)
    return [_row(name, measured[name], measured[BASELINE]) for name in names]


def _serve(loaded: LoadedPlacement, scenario: Scenario, batch: list[list[int]], measured: Measured) -> None:
    engine = loaded.engine(scenario, measured.on_verified)
    requests = [loaded.request(scenario, index, token_ids) for index, token_ids in enumerate(batch)]
    engine.add(requests)
    measured.seconds.append(engine.run().wall_us / 1e6)
    measured.token_ids += [request.output_token_ids for request in requests]
    measured.num_tokens += sum(len(request.output_token_ids) for request in requests)


def _row(name: str, measured: Measured, baseline: Measured) -> dict[str, Any]:
    ratios = np.array(baseline.seconds) / np.array(measured.seconds)
    low, high = median_interval(ratios)
    num_requests = len(measured.token_ids)
    return {
        "mode": name,
        "ms_per_token": 1000 * sum(measured.seconds) / measured.num_tokens,
        "speedup": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        # The first token of a request comes from the pass that ends its prompt.
        "tokens_per_step": (measured.num_tokens - num_requests) / measured.nodes.total(),
        "nodes": {str(n): count for n, count in sorted(measured.nodes.items())},
        "equal": measured.token_ids == baseline.token_ids,
        "seconds": measured.seconds,
    }


def table(report: dict[str, Any]) -> str:
    """Markdown: one table per batch size, and the sizes of the trees where they vary."""
    environment = report["environment"]
    drafts = "; ".join(f"{name}: {text}" for name, text in report["drafts"].items())
    work = f"{report['num_units']} units of {report['num_tokens']} tokens per request"
    lines = [
        f"{report['target']}; drafts {drafts}; {work}",
        f"{environment['cpu']}, {environment['num_threads']} threads, torch {environment['torch']}",
    ]
    for size, rows in report["batches"].items():
        lines += [
            "",
            f"batch {size}",
            "",
            "| mode | ms/token | speed-up [95 %] | tokens/step | nodes: share of steps | equal |",
        ]
        lines.append("|" + "---|" * 6)
        for row in rows:
            speedup = f"{row['speedup']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            cells = [row["mode"], f"{row['ms_per_token']:.2f}", speedup, f"{row['tokens_per_step']:.2f}"]
            lines.append(f"| {' | '.join(cells)} | {_shares(row['nodes'])} | {'yes' if row['equal'] else 'NO'} |")
    return "\n".join(lines)


def _shares(nodes: dict[str, int]) -> str:
    """The sizes that make up at least a twentieth of the steps, most frequent first."""
    total = sum(nodes.values())
    common = sorted(nodes.items(), key=lambda item: -item[1])
    return ", ".join(f"{n}: {count / total:.0%}" for n, count in common if count >= 0.05 * total)


if __name__ == "__main__":
    raise SystemExit(main())
