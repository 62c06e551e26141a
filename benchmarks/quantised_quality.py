"""Perplexity of the embedded targets with their weights in 8 and 4 bits, on text that none of them was trained on.

    python -m benchmarks.quantised_quality --output build/quantised_quality.json

Two texts: the shipped prompts, 32 tokens each, and windows of 256 tokens from the held-out files of Python's standard
library, which differ a little between Python versions. Computed in float32 by the engine's own decoders.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import torch
from tokenizers import Tokenizer

from treespec.config import ModelRef, Quantisation
from treespec.errors import ConfigError
from treespec.metrics.environment import describe_environment
from treespec.model.loader import load_model
from treespec.model.tokenizers.text import TextTokenizer
from treespec.parallel.mesh import ParallelMesh
from treespec.serving.prompts import read_prompt_file
from treespec.tuning.corpus import TokenStreams, standard_library_sources
from treespec.tuning.perplexity import perplexity

BOUNDS = {8: 0.01, 4: 0.05}  # over the unquantised target's perplexity, at the default group size
NUM_WINDOWS, WINDOW_TOKENS = 64, 256
Texts = dict[str, list[list[int]]]


@dataclass(frozen=True)
class Row:
    """A target in one form."""

    target: str
    weights: str
    group_size: int | None
    bits_per_weight: float | None  # scales and minima included; of the layers' linear maps
    perplexity: dict[str, float]  # by text
    excess: dict[str, float]  # over the unquantised target's, relative


def main() -> int:
    """Measure, print the table, write the JSON; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models/embedded"), help="folder of the pairs")
    parser.add_argument("--prompts", type=Path, default=Path("prompts"), help="folder of prompt files")
    parser.add_argument("--group-sizes", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for family in ("llama", "opt"):
        folder = args.models / family / "target"
        rows += _measure(f"{family} target", folder, _texts(folder, args.prompts), args.group_sizes)
    _print(rows)
    holds = _bounds_hold(rows)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"environment": describe_environment(torch.__version__, "cpu", args.threads), "holds": holds}
        report |= {"rows": [asdict(row) for row in rows]}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if holds else 1


def _texts(folder: Path, prompts: Path) -> Texts:
    tokenizer = TextTokenizer.load(folder)
    shipped = [text for path in sorted(prompts.glob("*.json")) for text in read_prompt_file(path)]
    streams = TokenStreams.encode(Tokenizer.from_file(str(folder / "tokenizer.json")), standard_library_sources())
    return {
        "prompts": [tokenizer.encode(text) for text in shipped],
        "held-out files": streams.held_out_rows(NUM_WINDOWS, WINDOW_TOKENS).tolist(),
    }


def _measure(name: str, folder: Path, texts: Texts, group_sizes: Sequence[int]) -> list[Row]:
    plain = _perplexities(folder, None, texts)
    rows = [Row(name, "as stored", None, None, plain, dict.fromkeys(plain, 0.0))]
    for quantisation in (Quantisation(bits=bits, group_size=size) for bits in (8, 4) for size in group_sizes):
        try:
            found = _perplexities(folder, quantisation, texts)
        except ConfigError:  # a group size that does not divide this model's rows
            continue
        excess = {text: value / plain[text] - 1 for text, value in found.items()}
        bits = quantisation.bits + 32 / quantisation.group_size
        rows.append(Row(name, quantisation.label, quantisation.group_size, bits, found, excess))
    return rows


def _perplexities(folder: Path, quantisation: Quantisation | None, texts: Texts) -> dict[str, float]:
    ref = ModelRef(path=folder, quantisation=quantisation)
    decoder = load_model(ref, torch.float32, torch.device("cpu"), ParallelMesh()).decoder
    return {name: perplexity(decoder, rows) for name, rows in texts.items()}


def _bounds_hold(rows: Sequence[Row]) -> bool:
    default = Quantisation(bits=8).group_size
    judged = [row for row in rows if row.group_size == default]
    excess = {bits: max(max(row.excess.values()) for row in judged if row.weights == f"int{bits}") for bits in BOUNDS}
    for bits, bound in BOUNDS.items():
        holds = "holds" if excess[bits] <= bound else "MISSED"
        print(f"int{bits}, group size {default}: at most {excess[bits]:+.2%} (bound {bound:.0%}): {holds}")
    return all(excess[bits] <= bound for bits, bound in BOUNDS.items())


def _print(rows: Sequence[Row]) -> None:
    print("| target | weights | group size | bits per weight | prompts | held-out files |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        size, bits = ("", "16") if row.bits_per_weight is None else (row.group_size, f"{row.bits_per_weight:g}")
        cells = [
            f"{row.perplexity[text]:.3f}" + (f" ({row.excess[text]:+.2%})" if row.group_size else "")
            for text in ("prompts", "held-out files")
        ]
        print(f"| {row.target} | {row.weights} | {size} | {bits} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    raise SystemExit(main())
