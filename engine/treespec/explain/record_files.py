"""Reads records for explaining: the complete ones, and why the others are left out. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from treespec.errors import ConfigError, InputFileError
from treespec.explain.observed import Observed, RequestCounts
from treespec.metrics.cost import CostModel

_META = ".meta.json"
_MODES = ("incremental", "sequence", "tree")


class _UnusableError(Exception):
    """A record that does not count, and why."""


@dataclass(frozen=True)
class ReadRecords:
    """What a folder of records holds."""

    complete: tuple[Observed, ...]
    left_out: dict[str, str]  # scenario -> why


def read_record_folder(folder: Path) -> ReadRecords:
    """Every record of a folder, in the order of their names. Raises InputFileError where there is none."""
    if not folder.is_dir():
        raise InputFileError(
            "no folder of records", where=str(folder), allowed="what `treespec run --output-dir` was given"
        )
    names = {path.name.removesuffix(_META) for path in folder.glob(f"*{_META}")}
    names |= {path.stem for path in folder.glob("*.jsonl")}
    if not names:
        raise InputFileError("the folder holds no records", where=str(folder), fix="run the scenarios first")
    complete, left_out = [], {}
    for name in sorted(names):
        try:
            complete.append(_read(folder, name))
        except _UnusableError as reason:
            left_out[name] = str(reason)
    if not complete:
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputFileError("no record is complete", where=str(folder), received=told, fix="run the scenarios again")
    return ReadRecords(tuple(complete), left_out)


def chosen(records: ReadRecords, patterns: Sequence[str]) -> list[Observed]:
    """The complete records that a name or pattern (``*``, ``?``) asks for, all if there is none.

    Raises ConfigError for a pattern that no complete record fits.
    """
    for pattern in patterns:
        if any(fnmatchcase(record.name, pattern) for record in records.complete):
            continue
        unusable = [f"{name} ({why})" for name, why in records.left_out.items() if fnmatchcase(name, pattern)]
        names = ", ".join(record.name for record in records.complete[:8])
        more = len(records.complete) - 8
        raise ConfigError(
            "no complete record of this scenario",
            where="--scenario",
            received=", ".join(unusable) or pattern,
            allowed=names + (f" and {more} more" if more > 0 else ""),
        )
    return [record for record in records.complete if is_asked_for(record.name, patterns)]


def is_asked_for(name: str, patterns: Sequence[str]) -> bool:
    """Whether a scenario fits one of the patterns; every one does where there is none."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _read(folder: Path, name: str) -> Observed:
    meta_path = folder / f"{name}{_META}"
    if not meta_path.exists():
        raise _UnusableError("rows without .meta.json: the run did not finish")
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        if meta["status"] != "ok":
            raise _UnusableError(f"failed: {' '.join(str(meta.get('error')).split())}")
        if meta["config"]["scenario"]["mode"] not in _MODES:
            raise _UnusableError(f"served by {meta['config']['scenario']['mode']}, not by this engine")
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        if len(lines) != meta["num_rows"] or not lines:
            raise _UnusableError(f"incomplete: {len(lines)} rows of {meta['num_rows']}")
        return _observed(name, meta, [_request(json.loads(line)) for line in lines])
    except KeyError as error:
        raise _UnusableError(f"damaged: it lacks {error}") from error
    except OSError as error:
        raise _UnusableError(f"damaged: {error.strerror}: {error.filename}") from error
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise _UnusableError("damaged: not the JSON that a record holds") from error


def _observed(name: str, meta: dict[str, Any], requests: Sequence[RequestCounts]) -> Observed:
    repeats = meta["repeats"]
    parts = repeats[0]["time_us"]
    return Observed(
        name=name,
        scenario=meta["config"]["scenario"],
        placement=meta["config"]["placement"],
        machine=meta["environment"],
        requests=tuple(requests),
        part_us={part: sum(int(repeat["time_us"][part]) for repeat in repeats) for part in parts},
        num_target_steps=sum(int(repeat["num_target_steps"]) for repeat in repeats),
        costs={int(model): CostModel.from_dict(cost) for model, cost in meta.get("costs", {}).items()},
    )


def _request(row: dict[str, Any]) -> RequestCounts:
    if row["latency_us"] < 0:
        raise _UnusableError("damaged: latency_us is not a duration")
    return RequestCounts(
        repeat=int(row["repeat"]),
        prompt_index=int(row["prompt_index"]),
        ms_per_token=row["latency_us"] / 1000 / row["num_output_tokens"],
        num_output_tokens=int(row["num_output_tokens"]),
        num_decoding_steps=len(row["accepted_per_step"]),
        num_draft_tokens=int(row["num_draft_tokens"]),
        offered=[list(map(int, ranks)) for ranks in row["offered_by_depth_and_rank"]],
        accepted=[list(map(int, ranks)) for ranks in row["accepted_by_depth_and_rank"]],
    )
