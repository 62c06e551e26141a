"""``treespec convert``: the command line of conversions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from treespec.errors import ConfigError

if TYPE_CHECKING:
    from treespec.model.conversion.convert import ConversionSettings


def add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser("convert", help="write a model folder from another: quantised, inflated, in a dtype")
    parser.add_argument("--model", type=Path, required=True, help="model folder (Hugging Face layout)")
    parser.add_argument("--output", type=Path, required=True, help="new folder; verified, or not there")
    parser.add_argument("--quantise", choices=["int8", "int4"], help="round the layers' linear maps, group by group")
    parser.add_argument("--group-size", type=int, help="inputs that share a scale and a minimum; default: 64")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="of the rest; default: the model's own"
    )
    parser.add_argument("--inflate-width", type=int, choices=[1, 4, 16], help="enlarge, the function kept")
    parser.add_argument("--inflate-layers", type=int, help="layers after inflation; default: the model's own")
    parser.add_argument("--max-shard-mib", type=int, default=4096, help="of one weight file")
    parser.set_defaults(command=_convert)


def _convert(args: argparse.Namespace) -> int:
    from treespec.model.conversion.convert import convert

    folder = convert(args.model, _settings(args), args.output)
    sys.stdout.write(f"{folder}\n")
    return 0


def _settings(args: argparse.Namespace) -> ConversionSettings:
    from pydantic import ValidationError

    from treespec.config.strict import describe_validation_error
    from treespec.model.conversion.convert import ConversionSettings

    if args.group_size is not None and args.quantise is None:
        raise ConfigError("--group-size without --quantise", allowed="--quantise int8 or --quantise int4 beside it")
    data: dict[str, object] = {"dtype": args.dtype, "max_shard_mib": args.max_shard_mib}
    if args.quantise is not None:
        sizes = {} if args.group_size is None else {"group_size": args.group_size}
        data["quantisation"] = {"bits": int(args.quantise.removeprefix("int")), **sizes}
    if args.inflate_width is not None or args.inflate_layers is not None:
        data["inflation"] = {"width_factor": args.inflate_width or 1, "num_layers": args.inflate_layers}
    try:
        return ConversionSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"settings refused: {describe_validation_error(error)}") from error
