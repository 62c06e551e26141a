"""What a model folder of ours holds, and whether it still does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from model_store.errors import unwritable
from model_store.lock import LockedModel
from treespec.config import StrictModel
from treespec.config.manifest import MANIFEST, FileRecord, is_unchanged, record_of
from treespec.files import write_atomically

Precision = Literal["half", "full"]


class Manifest(StrictModel):
    """manifest.json: where the files came from, and each as it was when it was written."""

    repository: str
    precision: Precision
    source: LockedModel
    files: dict[str, FileRecord]


class FetchedFiles(StrictModel):
    """The same of a folder that files are fetched to, complete or not."""

    files: dict[str, FileRecord]


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none, or none of ours: the folder then is somebody else's."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def read_fetched(folder: Path) -> dict[str, FileRecord]:
    """The records of what was fetched; empty where there are none."""
    try:
        return FetchedFiles.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8")).files
    except (OSError, UnicodeDecodeError, ValidationError):
        return {}


def write_manifest(folder: Path, manifest: Manifest | FetchedFiles) -> None:
    """Raises OutputError."""
    text = json.dumps(manifest.model_dump(mode="json", exclude_none=True), indent=1)
    write_atomically(folder / MANIFEST, text + "\n")


def recorded(path: Path, sha256: str) -> FileRecord:
    """The record of a file that was just written and hashed. Raises OutputError."""
    try:
        return record_of(path, sha256)
    except OSError as error:
        raise unwritable(error, path) from error


def damaged_files(folder: Path, records: Mapping[str, FileRecord], *, verify: bool) -> dict[str, str]:
    """File -> what is wrong with it. Content is read where size or time have changed, to ``verify`` everywhere."""
    return {
        name: problem
        for name, record in records.items()
        if (problem := _problem(folder / name, record, verify=verify)) is not None
    }


def _problem(path: Path, record: FileRecord, *, verify: bool) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != record.size:
        return f"{path.stat().st_size} bytes where {record.size} are right"
    if is_unchanged(path, record) and not verify:
        return None
    with open(path, "rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return None if sha256 == record.sha256 else f"sha256 {sha256} where {record.sha256} is right"
