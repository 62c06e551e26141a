"""Do boost-tuned drafts, merged, beat the best single one? Verified tokens per step on held-out prompts.

    python -m benchmarks.boost --merged build/boost/draft-1 build/boost/draft-2 \
        --single models/embedded/llama/draft --output build/boost.json

Every folder may be the best single draft; drafts given as ``--others`` are merged as a rival. Exact on the target's own
greedy text, which is made in float32 and kept in ``--cache-dir``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads fight on a shared machine

import torch
from transformers.utils import logging

from treespec.config import hash_model
from treespec.errors import TreespecError
from treespec.log import say
from treespec.metrics.environment import describe_environment
from treespec.model.tokenizers.text import TextTokenizer
from treespec.serving.prompts import read_prompt_file
from treespec.tuning.boost.card import held_out_section
from treespec.tuning.boost.loop import end_of_text_ids, load_network
from treespec.tuning.boost.report import HeldOutResults, compare_held_out
from treespec.tuning.boost.samples import continue_prompts
from treespec.tuning.boost.settings import require_matching_models
from treespec.tuning.boost.text import given_prompts


def main() -> int:
    """Evaluate, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("models/embedded/llama/target"))
    parser.add_argument("--merged", type=Path, nargs="+", required=True, help="folders of the drafts that are merged")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="drafts that, merged, are a rival")
    parser.add_argument(
        "--single", type=Path, nargs="*", default=[], help="other drafts that may be the best single one"
    )
    parser.add_argument("--held-out", type=Path, nargs="+", default=sorted(Path("prompts").glob("*.json")))
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--num-tokens", type=int, default=128)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache-dir", type=Path, default=Path("build/boost-texts"))
    parser.add_argument("--output", type=Path, help="write everything measured to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    started = time.monotonic()
    try:
        results = evaluate(args)
    except TreespecError as error:
        say(f"error: {error}")
        return 2
    sys.stdout.write(held_out_section(results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        environment = describe_environment(torch.__version__, args.device, args.threads)
        report = {"environment": environment, "wall_s": time.monotonic() - started, "held_out": results.as_json()}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def evaluate(args: argparse.Namespace) -> HeldOutResults:
    """Load the drafts, continue the prompts, compare."""
    folders = list(dict.fromkeys([*args.merged, *args.single, *args.others]))
    require_matching_models(args.target, folders, args.prompt_tokens + args.num_tokens)
    texts = [text for path in args.held_out for text in read_prompt_file(path)]
    prompts = given_prompts(texts, TextTokenizer.load(args.target), args.prompt_tokens)
    continuations = continue_prompts(
        cache(lambda: load_network(args.target, args.device, torch.float32)),
        f"{hash_model(args.target)} float32",
        prompts,
        args.num_tokens,
        end_of_text_ids(args.target),
        args.cache_dir,
        say,
    )
    names = {folder: "/".join(folder.absolute().parts[-2:]) for folder in folders}
    if len(set(names.values())) < len(names):
        names = {folder: str(folder) for folder in folders}
    networks = {names[folder]: load_network(folder, args.device, torch.float32) for folder in folders}
    merged, others = ([names[folder] for folder in given] for given in (args.merged, args.others))
    return compare_held_out(networks, merged, continuations, others)


if __name__ == "__main__":
    raise SystemExit(main())
