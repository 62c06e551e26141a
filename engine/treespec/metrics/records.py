"""Records on disk: one scenario, four files, committed by the last rename (docs/records.md)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from treespec.errors import OutputError
from treespec.files import write_atomically
from treespec.metrics.artifact_format import out_line, txt_block
from treespec.metrics.counts import PassProfile, RequestProfile
from treespec.request import Request

FORMAT = 1
FIRST_GUID = 1_000_000
SUFFIXES = (".jsonl", ".txt", ".out", ".meta.json")


@dataclass(frozen=True)
class ServedRequest:
    """One request of one pass, finished."""

    repeat: int
    prompt_index: int
    category: str | None  # of the prompt
    request: Request
    profile: RequestProfile
    full_text: str  # prompt and output, for the artifact's text form


class RecordFolder:
    """The raw results of one platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(folder, error) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError("results folder is not writable", where=str(folder), fix="choose another --output-dir")

    def is_complete(self, scenario: str, fingerprint: str) -> bool:
        """Whether a current, successful, whole record stands here."""
        meta = self._meta(scenario)
        if meta is None or meta.get("fingerprint") != fingerprint or meta.get("status") != "ok":
            return False
        rows = _bytes_of(self.folder / f"{scenario}.jsonl")
        # Records from before the digest was kept have only the count.
        is_as_written = "rows_sha256" not in meta or meta["rows_sha256"] == hashlib.sha256(rows).hexdigest()
        return is_as_written and _num_valid_rows(rows) == meta.get("num_rows")

    def supersede(self, scenario: str, fingerprint: str) -> None:
        """Move what stands in the way of a new record aside: one of another fingerprint, or a damaged one.

        Nothing is deleted. A damaged record goes too: its meta file would commit the rows of an unfinished new one.
        """
        meta = self._meta(scenario)
        if meta is None or (meta.get("fingerprint") == fingerprint and meta.get("status") != "ok"):
            return
        assert not self.is_complete(scenario, fingerprint), "a current record is never moved"
        aside = self.folder / "superseded"
        try:
            aside.mkdir(exist_ok=True)
        except OSError as error:
            raise _not_writable(aside, error) from error
        stem = f"{scenario}.{str(meta.get('fingerprint'))[:8]}"
        # The meta file goes last: as long as it is here, the record is known to be here.
        for suffix in SUFFIXES:
            source = self.folder / f"{scenario}{suffix}"
            if source.exists():
                os.replace(source, _unused(aside, stem, suffix))

    def write(self, scenario: str, served: Sequence[ServedRequest], meta: dict[str, Any]) -> None:
        """Commit a successful record."""
        rows = "".join(json.dumps(_row(index, item)) + "\n" for index, item in enumerate(served))
        base = self.folder / scenario
        write_atomically(base.with_name(f"{scenario}.jsonl"), rows)
        write_atomically(base.with_name(f"{scenario}.txt"), "".join(map(_txt, served)))
        write_atomically(
            base.with_name(f"{scenario}.out"),
            "".join(out_line(FIRST_GUID + i, item.profile) for i, item in enumerate(served)),
        )
        digest = hashlib.sha256(rows.encode()).hexdigest()
        self._write_meta(scenario, meta | {"status": "ok", "num_rows": len(served), "rows_sha256": digest})

    def write_failure(self, scenario: str, error: str, meta: dict[str, Any]) -> None:
        """Leave word of a scenario that failed; rows of an earlier attempt are removed."""
        for suffix in SUFFIXES[:-1]:
            (self.folder / f"{scenario}{suffix}").unlink(missing_ok=True)
        self._write_meta(scenario, meta | {"status": "failed", "error": error, "num_rows": 0})

    def _write_meta(self, scenario: str, meta: dict[str, Any]) -> None:
        text = json.dumps({"format": FORMAT, "scenario": scenario} | meta, indent=1)
        write_atomically(self.folder / f"{scenario}.meta.json", text + "\n")

    def _meta(self, scenario: str) -> dict[str, Any] | None:
        path = self.folder / f"{scenario}.meta.json"
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return {"fingerprint": "damaged"}  # not current, and moved aside like any other stale record
        return meta if isinstance(meta, dict) else {"fingerprint": "damaged"}


def pass_entry(totals: PassProfile) -> dict[str, Any]:
    """One element of the meta file's ``repeats``."""
    return {
        "wall_us": totals.wall_us,
        "num_target_steps": totals.num_target_steps,
        "num_target_rows": totals.num_target_rows,
        "num_output_tokens": totals.num_output_tokens,
        "time_us": totals.time_us,
        "traffic": totals.traffic,
        "offload": totals.offload,
    }


def utc_now() -> str:
    """The time of day, for the meta file."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _row(index: int, item: ServedRequest) -> dict[str, Any]:
    request, profile = item.request, item.profile
    assert request.finish_reason is not None
    return {
        "repeat": item.repeat,
        "guid": FIRST_GUID + index,
        "prompt_index": item.prompt_index,
        "category": item.category,
        "num_prompt_tokens": len(request.prompt_token_ids),
        "num_output_tokens": len(request.output_token_ids),
        "output_token_ids": request.output_token_ids,
        "finish_reason": request.finish_reason.value,
        "num_target_steps": profile.num_target_steps,
        "num_draft_tokens": profile.num_draft_tokens,
        "num_accepted_tokens": profile.num_accepted_tokens,
        "accepted_per_step": profile.accepted_per_step,
        "offered_by_depth_and_rank": profile.offered,
        "accepted_by_depth_and_rank": profile.accepted,
        "start_us": profile.start_us,
        "first_token_us": profile.first_token_us,
        "finish_us": profile.finish_us,
        "latency_us": profile.latency_us,
    }


def _txt(item: ServedRequest) -> str:
    token_ids = [*item.request.prompt_token_ids, *item.request.output_token_ids]
    return txt_block(item.profile, token_ids, item.full_text)


def _bytes_of(path: Path) -> bytes:
    """A file's content; nothing where there is none, or something else than a file in its place."""
    return path.read_bytes() if path.is_file() else b""


def _num_valid_rows(rows: bytes) -> int:
    """Lines that are JSON objects; -1 as soon as one is not."""
    count = 0
    for line in rows.splitlines():
        try:
            json.loads(line)
        except ValueError:
            return -1
        count += 1
    return count


def _unused(folder: Path, stem: str, suffix: str) -> Path:
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}.{number}{suffix}"
    return path


def _not_writable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        "results cannot be written", where=str(folder), received=error.strerror, fix="choose another --output-dir"
    )
