"""Tokens per decoding step of every verifier with the drafting it judges, on the same pair, prompts and trees.

    python -m benchmarks.verifiers --output build/verifiers.json

Accepted drafts and the target's own token, a mean over all steps; the interval is a bootstrap over prompts. Nothing is
timed. At temperature 0 draws are one-hot, so that drawn trees shrink to a chain.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treespec.config import Scenario, validate_run_config
from treespec.metrics.environment import describe_environment
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.passes import serve_pass
from treespec.serving.prompts import load_prompts

ROWS: tuple[tuple[str, str], ...] = (  # verifier, selection
    ("sampler_match", "top_k"),
    ("sampler_match", "iid"),
    ("token_rejection", "iid"),
    ("mss", "iid"),
    ("recursive_rejection", "without_replacement"),
    ("block", "iid"),
    ("traversal", "iid"),
    ("traversal", "without_replacement"),
)
CHAIN_RULES = ("token_rejection", "block")
BOOTSTRAP_DRAWS = 2000


def main() -> int:
    """Serve every cell, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--draft", type=Path, default=Path("models/embedded/llama/draft"))
    parser.add_argument("--prompts", type=Path, default=Path("prompts/mixed.json"))
    parser.add_argument("--num-prompts", type=int, default=40)
    parser.add_argument("--num-tokens", type=int, default=64)
    parser.add_argument("--expansion", type=int, nargs="+", default=[2, 2, 1])
    parser.add_argument("--temperature", type=float, action="append", help="default: 0, 0.6 and 1.0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    report = measure(args, args.temperature or [0.0, 0.6, 1.0])
    print(table(report))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(args: argparse.Namespace, temperatures: Sequence[float]) -> dict[str, Any]:
    """One cell per drafting, verifier and temperature."""
    expansions = {"chain": [1] * len(args.expansion), "tree": list(args.expansion)}
    cells = [
        {"shape": shape, "verifier": verifier, "selection": selection, "temperature": temperature}
        for shape in expansions
        for verifier, selection in ROWS
        for temperature in temperatures
        if shape == "chain" or verifier not in CHAIN_RULES
    ]
    scenarios = [_scenario(index, cell, expansions[str(cell["shape"])], args) for index, cell in enumerate(cells)]
    placement = {
        "name": "verifiers",
        "target": {"path": args.target},
        "drafts": [{"path": args.draft}],
        "num_threads": len(os.sched_getaffinity(0)),
    }
    config = validate_run_config({"placement": placement, "scenarios": scenarios}, where="the command line")
    loaded = load_placement(config.placement, config.scenarios)
    prompts = load_prompts(config.scenarios[0], loaded.target.tokenizer, config.placement.max_sequence_length)
    for number, (cell, scenario) in enumerate(zip(cells, config.scenarios, strict=True), start=1):
        cell.update(_tokens_per_step(loaded, scenario, prompts))
        print(f"{number} of {len(cells)}", file=sys.stderr)
    return {
        "target": loaded.target.description,
        "draft": loaded.draft.description if loaded.draft else "",
        "expansions": expansions,
        "num_prompts": len(prompts),
        "num_tokens": args.num_tokens,
        "seed": args.seed,
        "environment": describe_environment(torch.__version__, "cpu", torch.get_num_threads()),
        "cells": cells,
    }


def _scenario(index: int, cell: dict[str, Any], expansion: list[int], args: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": f"cell-{index}",
        "mode": "sequence" if set(expansion) == {1} else "tree",
        "drafters": [{"kind": "ssm", "expansion": expansion, "selection": cell["selection"]}],
        "verifier": cell["verifier"],
        "sampling": {"temperature": cell["temperature"], "seed": args.seed},
        "prompts": args.prompts,
        "num_prompts": args.num_prompts,
        "max_requests_per_batch": 8,
        "max_new_tokens": args.num_tokens,
        "ignore_eos": True,
    }


def _tokens_per_step(loaded: LoadedPlacement, scenario: Scenario, prompts: list[list[int]]) -> dict[str, float]:
    served = serve_pass(loaded, scenario, prompts)
    tokens = np.array([sum(profile.accepted_per_step) + len(profile.accepted_per_step) for profile in served.profiles])
    steps = np.array([len(profile.accepted_per_step) for profile in served.profiles])
    picked = np.random.default_rng(0).integers(len(tokens), size=(BOOTSTRAP_DRAWS, len(tokens)))
    low, high = np.quantile(tokens[picked].sum(axis=1) / steps[picked].sum(axis=1), [0.025, 0.975])
    return {"tokens_per_step": float(tokens.sum() / steps.sum()), "low": float(low), "high": float(high)}


def table(report: dict[str, Any]) -> str:
    """Markdown: a row per drafting and verifier, a column per temperature."""
    cells = report["cells"]
    temperatures = sorted({cell["temperature"] for cell in cells})
    work = f"{report['num_prompts']} prompts x {report['num_tokens']} tokens, seed {report['seed']}"
    lines = [
        f"{report['target']}; draft {report['draft']}; {work}",
        "",
        "| tree | children | verifier | " + " | ".join(f"temperature {t:g}" for t in temperatures) + " |",
        "|" + "---|" * (3 + len(temperatures)),
    ]
    for key in dict.fromkeys((cell["shape"], cell["selection"], cell["verifier"]) for cell in cells):
        of_row = {c["temperature"]: c for c in cells if (c["shape"], c["selection"], c["verifier"]) == key}
        shape = "<" + ",".join(map(str, report["expansions"][key[0]])) + ">"
        values = " | ".join(_interval(of_row[temperature]) for temperature in temperatures)
        lines.append(f"| {shape} | {key[1]} | {key[2]} | {values} |")
    return "\n".join(lines)


def _interval(cell: dict[str, float]) -> str:
    return f"{cell['tokens_per_step']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


if __name__ == "__main__":
    raise SystemExit(main())
