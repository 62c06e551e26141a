"""Plans for all wanted models first, then one model after the other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, logging

from model_store.catalogue import Catalogue, load_catalogue
from model_store.disk import free_bytes, in_units, require_room
from model_store.own import convert_folder
from model_store.places import CACHE
from model_store.store import Plan, Policy, Store
from model_store.wanted import Wanted, named_models, platform_models
from treespec.log import say


def run(args: argparse.Namespace) -> int:
    """Fetch and convert, or tell what that would be. Raises TreespecError."""
    logging.set_verbosity_error()  # what matters of its talk is said by us
    return _bring_all(args, _wanted(args))


def convert(args: argparse.Namespace) -> int:
    """Make a folder of safetensors of one's own folder of pickles. Raises TreespecError."""
    folder, output = args.convert
    print(convert_folder(folder, output, load_catalogue(args.catalogue)), flush=True)
    return 0


def _wanted(args: argparse.Namespace) -> list[Wanted]:
    if args.platform is None:
        names = [load_catalogue(args.catalogue).repository(name) for name in args.models]
        return named_models(names, args.cache_folder or CACHE, args.precisions or ("half", "full"))
    return platform_models(args.platform, args.sizes)


def _bring_all(args: argparse.Namespace, wanted: Sequence[Wanted]) -> int:
    """Plan everything first, so that what cannot be had is told before hours of fetching."""
    if not wanted:
        say(f"platform {args.platform}: all of its models are its own, none comes from the hub")
    catalogue = load_catalogue(args.catalogue)
    plans = [_plan(_store(args, catalogue, item.cache), item, is_dry=args.dry_run) for item in wanted]
    for cache in sorted({item.cache for item in wanted}):
        here = [plan for plan, item in zip(plans, wanted, strict=True) if item.cache == cache]
        _compare_with_disk(cache, here)
    if args.dry_run:
        return 0
    for plan, item in zip(plans, wanted, strict=True):
        for folder in _store(args, catalogue, item.cache).bring(plan, item.precisions):
            print(folder, flush=True)
    return 0


def _store(args: argparse.Namespace, catalogue: Catalogue, cache: Path) -> Store:
    policy = Policy(
        offline=args.offline or constants.HF_HUB_OFFLINE,
        verify=args.verify,
        update_lock=args.update_lock,
        refresh=args.refresh_cache,
        keep_originals=args.keep_originals,
    )
    return Store(cache, args.lock_file, catalogue, policy)


def _plan(store: Store, item: Wanted, *, is_dry: bool) -> Plan:
    plan = store.plan(item.repository, item.precisions, verify=is_dry and store.policy.verify)
    if is_dry:
        lacking = {file.name for file in plan.lacking}
        pinned = "locked" if plan.is_locked else "not locked yet"
        print(
            f"{item.repository}  {' and '.join(item.precisions)} precision, revision {plan.source.revision} ({pinned})"
        )
        for fault in plan.faults:
            print(f"  {fault}")
        for name, file in plan.source.files.items():
            borrowed = f"  of {file.repository}" if file.repository != item.repository else ""
            print(f"  {file.size:>14,} B  {'to fetch' if name in lacking else 'here    '}  {name}{borrowed}")
    return plan


def _compare_with_disk(cache: Path, plans: Sequence[Plan]) -> None:
    """Raises OutputError where even the least that is needed finds no room."""
    fetched = sum(plan.num_bytes for plan in plans)
    least, most = sum(plan.least_bytes for plan in plans), sum(plan.most_bytes for plan in plans)
    converted = in_units(least) + (f" to {in_units(most)}" if most != least else "")
    free = f"{in_units(free_bytes(cache))} free in {cache}"
    if fetched or most:
        say(f"to fetch: {in_units(fetched)}; conversion takes {converted} besides; {free}")
    require_room(cache, fetched + least)
