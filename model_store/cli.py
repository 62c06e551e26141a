"""The command line of download_models.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_store import embedded
from model_store.places import CACHE, CATALOGUE, LOCK_FILE
from treespec.errors import TreespecError

DESCRIPTION = """Fetch models of the hub at pinned revisions, verify and convert them; or check the embedded ones.

python download_models.py                       # compare models/embedded with its checksums, needs no network
python download_models.py --platform g5         # the models that a platform gets from the hub
python download_models.py llama-7b opt-125m     # models by name, in both precisions
python download_models.py --convert MINE NEW    # a folder of your own with pytorch_model*.bin, into safetensors
python download_models.py --remake llama        # train the embedded pair again (about an hour on two cores)
"""
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """What is wrong is one line on stderr and exit status 2; embedded files that are not as shipped give 1."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.remake:
        return embedded.remake(args.remake, args.models_dir, args.work_dir)
    _require_one_thing(parser, args)
    try:
        if not args.models and args.platform is None and args.convert is None:
            return embedded.verify(args.models_dir, args.prompts_dir, args.output)
        from model_store.bring import convert, run  # torch and the hub's client: the embedded models need neither

        return convert(args) if args.convert is not None else run(args)
    except TreespecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "nothing was written" if args.convert is not None else "what is fetched stays, the same command goes on"
        print(f"interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED


def _require_one_thing(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.models and args.platform is not None:
        parser.error("either names of models or --platform")
    if args.convert is not None and (args.models or args.platform is not None):
        parser.error("--convert takes a folder of your own, and neither names of models nor --platform")
    if args.convert is not None and args.precisions:
        parser.error("--convert keeps the precision; treespec convert --dtype gives another")
    if args.platform is not None and (args.precisions or args.cache_folder):
        parser.error("a platform's paths say precision and cache folder")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="organisation/name, or a name in config/models.yaml")
    parser.add_argument(
        "--convert", nargs=2, type=Path, metavar=("FOLDER", "OUTPUT"), help="write a *.bin folder anew in safetensors"
    )
    parser.add_argument("--platform", help="name of a platform, or the path of a platform file")
    parser.add_argument("--sizes", nargs="+", help="model sizes of the platform to fetch; default: all")
    precision = parser.add_mutually_exclusive_group()
    for name in ("half", "full"):
        precision.add_argument(f"--{name}-precision-only", action="store_const", const=(name,), dest="precisions")
    parser.add_argument("--cache-folder", type=Path, help=f"where named models are kept; default: {CACHE}")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be fetched and whether it fits")
    parser.add_argument("--verify", action="store_true", help="read all files again, even unchanged ones")
    parser.add_argument("--refresh-cache", action="store_true", help="remove what is here and fetch it anew")
    parser.add_argument("--offline", action="store_true", help="ask the hub nothing (also: HF_HUB_OFFLINE=1)")
    parser.add_argument("--update-lock", action="store_true", help="take repositories as they are now, and pin that")
    parser.add_argument("--keep-originals", action="store_true", help="keep weights that have been converted")
    parser.add_argument("--lock-file", type=Path, default=LOCK_FILE, help="revisions and hashes; default: %(default)s")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE, help="default: %(default)s")
    own = parser.add_argument_group("embedded models")
    own.add_argument("--models-dir", type=Path, default=Path("models/embedded"), help="folder of the model families")
    own.add_argument("--prompts-dir", type=Path, default=Path("prompts"), help="folder of the held-out prompts")
    own.add_argument("--output", type=Path, help="write the verified checksums to this file as well")
    own.add_argument("--remake", choices=["llama", "opt"], help="train this family instead of verifying")
    own.add_argument("--work-dir", type=Path, default=Path("build/tuning"), help="finished training phases are kept")
    return parser
