"""``treespec explain``: why a run is as fast as it is, and which speculation would pay."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treespec.errors import ConfigError
from treespec.log import say

if TYPE_CHECKING:
    from treespec.config import RunConfig

NUM_PROMPTS = 8
NUM_TOKENS = 64
MAX_TREE_NODES = 64


def add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser("explain", help="why is it slower? from records, or from a short measurement")
    parser.add_argument("target", type=Path, nargs="?", help="measure this target model folder ...")
    parser.add_argument("draft", type=Path, nargs="?", help="... with this draft model folder")
    parser.add_argument("--config", type=Path, metavar="JOB.yaml", help="measure the placement of a job file")
    parser.add_argument("--records", type=Path, metavar="DIR", help="explain the records of a folder, run nothing")
    parser.add_argument(
        "--scenario", nargs="+", default=[], metavar="NAME", help="of --records: these; * and ? stand for anything"
    )
    parser.add_argument("--prompts", type=Path, help="of two folders: file of prompts; default: eight of ours")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of two folders")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of two folders")
    parser.add_argument("--threads", type=_positive, help="of two folders: CPU threads; default: one per core")
    parser.add_argument("--max-new-tokens", type=_positive, default=NUM_TOKENS, help="of a measurement, at most")
    parser.add_argument("--max-batch-size", type=_positive, default=16, help="of a measurement: how far to look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file")
    parser.set_defaults(command=_explain)


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a positive number, received {text!r}")
    return value


def _explain(args: argparse.Namespace) -> int:
    _require_one_source(args)
    if args.json is not None and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise ConfigError("output cannot be written", where=str(args.json), allowed="a file in an existing folder")
    if args.records is not None:
        _explain_records(args)
    else:
        _explain_pair(args)
    return 0


def _require_one_source(args: argparse.Namespace) -> None:
    named = [args.records is not None, args.config is not None, args.target is not None]
    if sum(named) != 1 or (args.target is None) != (args.draft is None):
        raise ConfigError(
            "explain needs one thing to look at",
            received=f"{sum(named)} of them" if sum(named) != 1 else "a target without a draft",
            allowed="--records DIR, --config JOB.yaml, or TARGET DRAFT",
        )
    if args.scenario and args.records is None:
        raise ConfigError("--scenario chooses among records", fix="give --records DIR too")


def _explain_records(args: argparse.Namespace) -> None:
    from treespec.explain.record_files import chosen, is_asked_for, read_record_folder
    from treespec.explain.records_report import explain_records
    from treespec.explain.report import write_json

    records = read_record_folder(args.records)
    for name, reason in records.left_out.items():
        if is_asked_for(name, args.scenario):
            say(f"left out: {name}: {reason}")
    explained = explain_records(chosen(records, args.scenario), records.complete, records.left_out)
    sys.stdout.write(explained.text() + "\n")
    if args.json is not None:
        write_json(explained.data(), args.json)


def _explain_pair(args: argparse.Namespace) -> None:
    from treespec.explain.measurement import measure_pair
    from treespec.explain.report import measured_data, measured_text, write_json

    if args.config is not None:
        config, prompts = _job(args)
    else:
        config, prompts = _folders(args)
    measured = measure_pair(config, prompts, args.max_batch_size)
    sys.stdout.write(measured_text(measured) + "\n")
    if args.json is not None:
        write_json(measured_data(measured), args.json)


def _job(args: argparse.Namespace) -> tuple[RunConfig, Sequence[Sequence[int]]]:
    """The job with its outputs cut short, and the first prompts of the scenario that is looked at."""
    from treespec.config import load_run_config
    from treespec.explain.measurement import template_of
    from treespec.model.spec import read_config
    from treespec.model.tokenizers.text import TextTokenizer
    from treespec.serving.prompts import load_prompts

    config = load_run_config(args.config)
    scenarios = [
        scenario.model_copy(update={"max_new_tokens": min(scenario.max_new_tokens, args.max_new_tokens)})
        for scenario in config.scenarios
    ]
    config = config.model_copy(update={"scenarios": tuple(scenarios)})
    read_config(config.placement.target.path)
    tokenizer = TextTokenizer.load(config.placement.target.path)
    prompts = load_prompts(template_of(config), tokenizer, config.placement.max_sequence_length)
    return config, prompts[:NUM_PROMPTS]


def _folders(args: argparse.Namespace) -> tuple[RunConfig, Sequence[Sequence[int]]]:
    from treespec.config import validate_run_config
    from treespec.model.spec import read_config
    from treespec.model.tokenizers.text import TextTokenizer
    from treespec.serving.default_prompts import DEFAULT_PROMPTS
    from treespec.serving.limits import require_prompt_positions
    from treespec.serving.prompts import encode_prompts, read_prompt_file

    for folder in (args.target, args.draft):
        read_config(folder)
    prompts_from = str(args.prompts or "the built-in list")
    texts = read_prompt_file(args.prompts) if args.prompts else DEFAULT_PROMPTS
    prompts = encode_prompts(texts, TextTokenizer.load(args.target), prompts_from)[:NUM_PROMPTS]
    require_prompt_positions((args.target, args.draft), prompts, args.max_new_tokens, prompts_from)
    placement = {
        "name": "explain",
        "target": {"path": args.target},
        "drafts": [{"path": args.draft}],
        "dtype": args.dtype,
        "device": args.device,
        "num_threads": args.threads,
        "max_sequence_length": max(map(len, prompts)) + args.max_new_tokens,
        "max_tree_nodes": MAX_TREE_NODES,
    }
    scenario = {
        "name": "explain",
        "mode": "sequence",
        "expansion": [1],
        "prompts": prompts_from,
        "max_requests_per_batch": 1,
        "max_new_tokens": args.max_new_tokens,
        "ignore_eos": True,
    }
    data = {"placement": placement, "scenarios": [scenario]}
    return validate_run_config(data, where="treespec explain"), prompts
