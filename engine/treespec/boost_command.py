"""``treespec boost``: the command line of boost-tuning."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treespec.log import say

if TYPE_CHECKING:
    from treespec.model.tokenizers.text import TextTokenizer


def add_boost(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser("boost", help="train drafts one after another on what the earlier ones do not know")
    parser.add_argument("--target", type=Path, required=True, help="folder of the target model (Hugging Face layout)")
    parser.add_argument(
        "--draft", type=Path, nargs="+", required=True, help="starting point of all drafts, or one for each of them"
    )
    parser.add_argument("--num-drafts", type=int, default=2)
    parser.add_argument("--output-dir", type=Path, required=True, help="a rerun with the same settings goes on here")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompts", type=Path, nargs="+", help="training prompts: JSON lists of strings")
    text.add_argument(
        "--corpus", type=Path, nargs="+", help="text files or folders of them; default: Python's standard library"
    )
    parser.add_argument(
        "--held-out", type=Path, nargs="+", help="prompts to judge the drafts on: JSON lists of strings"
    )
    parser.add_argument("--num-prompts", type=int, default=1536, help="prompts cut from the corpus")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="tokens of a training prompt")
    _add_training(parser)
    parser.set_defaults(command=_boost)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-tokens", type=int, default=128, help="of the target's continuation")
    parser.add_argument(
        "--sample-tokens",
        type=int,
        help="cut continuations into samples of so many; default: --num-tokens, as the paper",
    )
    parser.add_argument(
        "--match-tokens", type=int, default=4, help="first tokens of a sample that must be equal for it to be dropped"
    )
    parser.add_argument("--keep-matched", action="store_true", help="drop no sample: the control")
    parser.add_argument("--loss", choices=["kl", "ce"], default="kl", help="to the target's distribution or its tokens")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-rows", type=int, default=16, help="prompts per step")
    parser.add_argument("--learning-rate", type=float, default=0.004, help="peak, of the matrices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the target")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; default: one per core this process may use")


def _boost(args: argparse.Namespace) -> int:
    import os

    import torch
    from transformers.utils import logging

    from treespec.metrics.environment import describe_environment
    from treespec.model.tokenizers.text import TextTokenizer
    from treespec.tuning.boost.card import held_out_section
    from treespec.tuning.boost.loop import BoostTuning
    from treespec.tuning.boost.settings import BoostSettings, require_matching_models
    from treespec.tuning.boost.text import given_prompts, require_unseen

    settings = BoostSettings(
        target=args.target,
        drafts=tuple(args.draft),
        num_drafts=args.num_drafts,
        num_tokens=args.num_tokens,
        sample_tokens=args.sample_tokens or args.num_tokens,
        match_tokens=args.match_tokens,
        keep_matched=args.keep_matched,
        loss=args.loss,
        num_steps=args.steps,
        batch_rows=args.batch_rows,
        learning_rate=args.learning_rate,
        seed=args.seed,
        dtype=args.dtype,
        device=args.device,
    )
    logging.disable_progress_bar()
    require_matching_models(args.target, args.draft, args.prompt_tokens + args.num_tokens)
    tokenizer = TextTokenizer.load(args.target)
    prompts = _training_prompts(args, tokenizer)
    held_out = given_prompts(_texts(args.held_out or []), tokenizer, args.prompt_tokens)
    require_unseen(held_out, prompts)
    torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
    tuning = BoostTuning(settings, prompts, args.output_dir, say)
    stages = tuning.run()
    results = tuning.evaluate(held_out) if held_out else None
    environment = describe_environment(torch.__version__, args.device, torch.get_num_threads())
    facts = {"text": _text_source(args), "prompt_tokens": args.prompt_tokens, "environment": environment}
    tuning.publish_report(stages, results, facts)
    if results is not None:
        sys.stdout.write(held_out_section(results))
    else:
        sys.stdout.write(json.dumps([stage.as_json() for stage in stages], indent=1) + "\n")
    return 0


def _training_prompts(args: argparse.Namespace, tokenizer: TextTokenizer) -> list[list[int]]:
    from treespec.tuning.boost.text import given_prompts, library_corpus, read_corpus, window_prompts

    if args.prompts:
        return given_prompts(_texts(args.prompts), tokenizer, args.prompt_tokens)
    texts = read_corpus(args.corpus) if args.corpus else library_corpus()
    return window_prompts(texts, tokenizer, args.num_prompts, args.prompt_tokens, args.seed)


def _texts(paths: Sequence[Path]) -> list[str]:
    from treespec.serving.prompts import read_prompt_file

    return [text for path in paths for text in read_prompt_file(path)]


def _text_source(args: argparse.Namespace) -> str:
    if args.prompts:
        return "prompts of " + ", ".join(path.name for path in args.prompts)
    if args.corpus:
        return "windows of " + ", ".join(path.name for path in args.corpus)
    return "windows of the training files of Python's standard library"
