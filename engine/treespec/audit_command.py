"""``treespec audit``: proof, by enumeration and on real models, that speculation changes nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from treespec.errors import ConfigError
from treespec.log import say

if TYPE_CHECKING:
    from treespec.audit.pair import AuditedPair
    from treespec.audit.report import AuditRow
    from treespec.config import Sampling

EMBEDDED_PAIR = Path("models/embedded/llama")  # from where the command runs: a checkout


def add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "audit", help="prove that speculation keeps the target's output; status 0 if all holds"
    )
    parser.add_argument("--verifier", action="append", metavar="NAME", help="repeatable; default: every verifier")
    parser.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="repeatable")
    parser.add_argument(
        "--target", type=Path, help=f"folder of a target model; default: {EMBEDDED_PAIR} if it is there"
    )
    parser.add_argument("--draft", type=Path, help="folder of a draft model, with the target's tokenizer")
    parser.add_argument("--prompts", type=Path, help="file of prompts (docs/prompts.md); default: eight of ours")
    parser.add_argument("--samples", type=_positive, default=1000, help="requests per test of a distribution")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the sampled requests")
    parser.add_argument(
        "--top-k", type=int, help="of the sampled requests, 0: all; default: 4 in float32, all in 16 bits"
    )
    parser.add_argument("--max-new-tokens", type=_positive, default=32, help="of the greedy requests")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=_positive, help="CPU threads; default: one per core this process may use")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write every number to this file")
    parser.set_defaults(command=_audit)


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a positive number, received {text!r}")
    return value


def _audit(args: argparse.Namespace) -> int:
    from treespec.audit.report import all_hold, audit_table, write_audit_json

    if args.output is not None and (args.output.is_dir() or not args.output.absolute().parent.is_dir()):
        raise ConfigError("output cannot be written", where=str(args.output), allowed="a file in an existing folder")
    rows = []
    for row in _rows(args):
        rows.append(row)
        if row.holds is False:
            say(f"FAILS: {row.check}: {row.subject}: {row.found}")
    sys.stdout.write(audit_table(rows) + "\n")
    if args.output is not None:
        write_audit_json(rows, _about(args), args.output)
    return 0 if all_hold(rows) else 1


def _rows(args: argparse.Namespace) -> Iterator[AuditRow]:
    """All checks in turn; what the user got wrong is told before the first of them."""
    import torch

    from treespec.audit.certificate import certify
    from treespec.audit.controls import run_controls
    from treespec.audit.report import AuditRow, certificate_rows, control_row
    from treespec.serving.plugins import load_methods

    registry = load_methods(args.plugin).verifiers
    names = list(dict.fromkeys(args.verifier or registry.names))
    verifiers = {name: registry.get(name, where="--verifier") for name in names}
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    pair = _pair(args, names)
    say(f"certificate: every outcome of {len(verifiers)} verifiers on small worlds")
    yield from certificate_rows(certify(verifiers))
    say("negative controls: known mistakes, which the certificate must see")
    yield from map(control_row, run_controls())
    if pair is None:
        yield AuditRow.not_run("pair of models", f"no --target and --draft, and no {EMBEDDED_PAIR} here")
        return
    say(f"{pair.loaded.target.description} with {pair.loaded.placement.drafts[0].name}: equality and distributions")
    yield from pair.rows()


def _pair(args: argparse.Namespace, verifiers: list[str]) -> AuditedPair | None:
    from treespec.audit.pair import AuditedPair, PairSettings
    from treespec.serving.default_prompts import DEFAULT_PROMPTS
    from treespec.serving.prompts import read_prompt_file

    if (args.target is None) != (args.draft is None):
        raise ConfigError("a pair is two models", received="one of --target and --draft", allowed="both or neither")
    if args.target is None and not EMBEDDED_PAIR.is_dir():
        return None
    settings = PairSettings(
        target=args.target or EMBEDDED_PAIR / "target",
        draft=args.draft or EMBEDDED_PAIR / "draft",
        prompts=read_prompt_file(args.prompts) if args.prompts else DEFAULT_PROMPTS,
        prompts_from=str(args.prompts or "the built-in list"),
        verifiers=verifiers,
        plugins=tuple(args.plugin),
        sampling=_sampling(args),
        num_samples=args.samples,
        max_new_tokens=args.max_new_tokens,
        dtype=args.dtype,
        device=args.device,
        num_threads=args.threads,
    )
    return AuditedPair.load(settings)


def _sampling(args: argparse.Namespace) -> Sampling:
    """In 16 bits rounding moves the cut after the k-th token, so that by default there is none."""
    from pydantic import ValidationError

    from treespec.config import Sampling
    from treespec.config.strict import describe_validation_error

    default = 4 if args.dtype == "float32" else 0
    top_k = default if args.top_k is None else args.top_k
    try:
        return Sampling(temperature=args.temperature, top_k=top_k or None)
    except ValidationError as error:
        raise ConfigError(f"sampling refused: {describe_validation_error(error)}", where="treespec audit") from error


def _about(args: argparse.Namespace) -> dict[str, object]:
    import torch

    from treespec.metrics.environment import describe_environment

    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    settings = {name: value for name, value in vars(args).items() if name not in ("command", "output", "plugin")}
    return {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
        "environment": describe_environment(torch.__version__, device, torch.get_num_threads()),
    }
