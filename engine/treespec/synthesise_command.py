"""``treespec synthesise SHAPE OUTPUT_DIR``: the command line of synthetic models."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from treespec.errors import ConfigError
from treespec.log import say

if TYPE_CHECKING:
    from treespec.model.synthetic.calibration import Calibration
    from treespec.model.synthetic.card import Knobs, SyntheticCard
    from treespec.model.synthetic.presets import Wanted
    from treespec.model.synthetic.shapes import Core, ModelShape, PublishedShape

SIZES = ("vocab_size", "hidden_size", "ffn_size", "num_layers", "num_heads", "num_kv_heads", "max_positions")
DRAFT_SIZES = ("hidden_size", "ffn_size", "num_layers")


def add_synthesise(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "synthesise", help="make a target of any shape with seeded noise for weights, and a draft that agrees as asked"
    )
    parser.add_argument("shape", help="a published shape (an unknown name lists them), or a family: llama, opt")
    parser.add_argument("output_dir", type=Path, help="new folder; the models are its subfolders target and draft")
    agreement = parser.add_mutually_exclusive_group(required=True)
    agreement.add_argument("--agreement", type=float, help="share of the target's greedy tokens the draft finds")
    agreement.add_argument("--like", metavar="PRESET", help="table1/greedy/alpaca, table1/stochastic/cip, ...")
    agreement.add_argument("--knobs", metavar="JSON", help="of an earlier synthetic.json: no calibration")
    for name in SIZES:
        parser.add_argument(_option(name), type=_positive, help="instead of the shape's")
    for name in DRAFT_SIZES:
        parser.add_argument(_option(f"draft_{name}"), type=_positive, help="default: the shape's usual draft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], default="float16")
    parser.add_argument("--no-weights", action="store_true", help="write no weights: they are made when loaded")
    parser.add_argument(
        "--share-layers", type=_positive, metavar="N", help="layers behind the draft's repeat every N; no weight files"
    )
    parser.add_argument("--num-requests", type=_positive, default=256, help="prompts that agreement is measured on")
    parser.add_argument("--num-tokens", type=_positive, default=32, help="tokens of each continuation")
    parser.set_defaults(command=_synthesise)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a positive number, received {text!r}")
    return value


def _knobs(text: str) -> Knobs:
    from pydantic import ValidationError

    from treespec.config.strict import describe_validation_error
    from treespec.model.synthetic.card import Knobs

    try:
        return Knobs.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(
            f"knobs refused: {describe_validation_error(error)}",
            where="--knobs",
            allowed="the object of that name in a synthetic.json, such as "
            f"{Knobs(noise=0.2).model_dump_json()}, or noise alone",
        ) from error


def _synthesise(args: argparse.Namespace) -> int:
    from treespec.files import write_atomically
    from treespec.model.synthetic.card import CoreSizes, SyntheticCard
    from treespec.model.synthetic.folder import new_folder, require_disk, write_model

    published, shape, core = _sizes(args)
    shape.require_consistent()
    draft = core.draft_of(shape)
    wanted, knobs = _wanted(args)
    if args.seed < 0:
        raise ConfigError("the seed is negative", received=args.seed)
    card = SyntheticCard(
        title=published.title if published and published.shape == shape else _title(shape, published),
        role="target",
        seed=args.seed,
        dtype=args.dtype,
        core=CoreSizes(**asdict(core)),
        knobs=knobs,
        share_layers=args.share_layers,
    )
    with_weights = not (args.no_weights or args.share_layers)
    # A model is told from others by its files, and files that repeat layers would not be smaller.
    with new_folder(args.output_dir) as folder:
        require_disk(folder, _num_bytes(folder, (shape, draft), card) if with_weights else 0)
        report: dict[str, Any] = {"shape": asdict(shape), "draft": asdict(draft), "source": _source(published)}
        if wanted is not None:
            calibration = _calibrated(args, shape, card, wanted)
            card = card.model_copy(update={"knobs": calibration.knobs})
            report |= _found(calibration, wanted)
        for role, sizes in (("target", shape), ("draft", draft)):
            (folder / role).mkdir()
            started = time.monotonic()
            write_model(folder / role, sizes, card.model_copy(update={"role": role}), with_weights=with_weights)
            size, took = _folder_bytes(folder / role), time.monotonic() - started
            say(f"{role}: {size / 1e9:.3f} GB made and written in {took:.2f} s, {size / 1e9 / took:.2f} GB/s")
        report["card"] = card.model_dump(mode="json")
        write_atomically(folder / "agreement.json", json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _sizes(args: argparse.Namespace) -> tuple[PublishedShape | None, ModelShape, Core]:
    """The shape, published or explicit, and its draft's sizes: those given, or usual, or one layer of full width."""
    from treespec.model.synthetic.shapes import PUBLISHED, Core, Family, ModelShape

    given = {name: value for name in SIZES if (value := getattr(args, name)) is not None}
    given_draft = {name: value for name in DRAFT_SIZES if (value := getattr(args, f"draft_{name}")) is not None}
    families = get_args(Family)
    if args.shape not in families:
        if args.shape not in PUBLISHED:
            allowed = f"{', '.join(PUBLISHED.names)}; or a family, with sizes of your own: {', '.join(families)}"
            raise ConfigError("unknown shape", received=repr(args.shape), allowed=allowed)
        published = PUBLISHED.get(args.shape)
        return published, replace(published.shape, **given), replace(published.core, **given_draft)
    needed = [name for name in SIZES[:5] if name not in given]
    if needed:
        raise ConfigError("sizes are missing", received=args.shape, allowed=" ".join(_option(name) for name in needed))
    shape = ModelShape(args.shape, **({"num_kv_heads": given["num_heads"]} | given))
    core = Core(**({"hidden_size": shape.hidden_size, "ffn_size": shape.ffn_size, "num_layers": 1} | given_draft))
    return None, shape, core


def _title(shape: ModelShape, published: PublishedShape | None) -> str:
    changed = f"changed {published.title}" if published else shape.family
    return f"{changed} {shape.num_layers}x{shape.hidden_size}"


def _source(published: PublishedShape | None) -> str:
    return published.source if published else "sizes given on the command line"


def _wanted(args: argparse.Namespace) -> tuple[Wanted | None, Knobs]:
    """What to calibrate for, and the knobs to begin or to end with."""
    from treespec.model.synthetic.presets import PRESETS, wanted_agreement

    if args.knobs is not None:
        return None, _knobs(args.knobs)
    wanted = wanted_agreement(args.agreement) if args.agreement is not None else PRESETS.get(args.like)
    return wanted, wanted.start


def _num_bytes(folder: Path, shapes: tuple[ModelShape, ...], card: SyntheticCard) -> int:
    from treespec.model.synthetic.checkpoint import SyntheticCheckpoint
    from treespec.model.synthetic.folder import num_weight_bytes

    return sum(num_weight_bytes(SyntheticCheckpoint.of(folder, shape, card).tensors) for shape in shapes)


def _calibrated(args: argparse.Namespace, shape: ModelShape, card: SyntheticCard, wanted: Wanted) -> Calibration:
    from treespec.model.synthetic.agreement import Trajectories
    from treespec.model.synthetic.calibration import calibrate

    settings = Trajectories(num_requests=args.num_requests, num_tokens=args.num_tokens)
    return calibrate(shape, card, wanted, settings, say)


def _found(calibration: Calibration, wanted: Wanted) -> dict[str, Any]:
    """What was wanted and what a fresh measurement found."""
    measured = calibration.measured
    return {
        "decoding": "sampled at temperature 1" if wanted.is_sampled else "greedy",
        "wanted": wanted.shares,
        "furthest": measured.furthest(wanted.shares),
        "measured": asdict(measured),
        "measured_on": asdict(calibration.measured_on),
    }
