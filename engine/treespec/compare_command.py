"""``treespec compare TARGET DRAFT``: the command line of a comparison."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from treespec.errors import ConfigError
from treespec.log import say


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser("compare", help="incremental, sequence and tree decoding of two model folders")
    parser.add_argument("target", type=Path, help="folder of the target model (Hugging Face layout)")
    parser.add_argument("draft", type=Path, help="folder of the draft model, with the target's tokenizer")
    parser.add_argument("--prompts", type=Path, help="file of prompts (docs/prompts.md); default: eight of ours")
    parser.add_argument("--batch-size", type=_widths, default=(1, 4), metavar="1,4", help="requests per batch")
    parser.add_argument(
        "--sequence", type=_widths, default=(1,) * 8, metavar="1,1,...", help="expansion of sequence mode"
    )
    parser.add_argument(
        "--tree", type=_widths, default=(1, 1, 3, 1, 1, 1, 1, 1), metavar="1,1,3,...", help="of tree mode"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; default: one per core this process may use")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--png", type=Path, help="draw the speed-ups to this file: .png, .pdf or .svg")
    parser.set_defaults(command=_compare)


def _widths(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"positive numbers separated by commas, received {text!r}")
    return values


def _compare(args: argparse.Namespace) -> int:
    from treespec.serving.comparison import ComparisonSettings, run_comparison
    from treespec.serving.comparison_picture import require_drawable, write_comparison_picture
    from treespec.serving.comparison_report import comparison_table, write_comparison_json
    from treespec.serving.default_prompts import DEFAULT_PROMPTS
    from treespec.serving.prompts import read_prompt_file

    for path in (args.json, args.png):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError("the folder of an output file does not exist", where=str(path))
    if args.png is not None:
        require_drawable(args.png)
    settings = ComparisonSettings(
        target=args.target,
        draft=args.draft,
        prompts=read_prompt_file(args.prompts) if args.prompts else DEFAULT_PROMPTS,
        prompts_from=str(args.prompts or "the built-in list"),
        batch_sizes=args.batch_size,
        sequence=args.sequence,
        tree=args.tree,
        dtype=args.dtype,
        device=args.device,
        num_threads=args.threads,
        max_new_tokens=args.max_new_tokens,
        num_repeats=args.repeats,
    )
    comparison = run_comparison(settings)
    sys.stdout.write(comparison_table(comparison) + "\n")
    if args.json:
        write_comparison_json(comparison, args.json)
    if args.png:
        write_comparison_picture(comparison, args.png)
    if not comparison.is_equal:
        say("the modes generated different tokens; in float32 that is a bug, in 16 bits it may be a near-tie")
    return 0 if comparison.is_equal else 1
