"""The manifest of a model folder: the sha256 of its files as they were when their sizes and times were noted."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from treespec.config.strict import StrictModel

MANIFEST = "manifest.json"


class FileRecord(StrictModel):
    """A file as it was when its content was hashed."""

    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mtime_ns: int


def record_of(path: Path, sha256: str) -> FileRecord:
    """The record of a file that has just been hashed. Raises OSError."""
    status = path.stat()
    return FileRecord(size=status.st_size, sha256=sha256, mtime_ns=status.st_mtime_ns)


def is_unchanged(path: Path, record: FileRecord) -> bool:
    """Whether a file has the size and the modification time of its record: its content need not be read again."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)


def recorded_hashes(folder: Path) -> dict[str, str]:
    """File name -> sha256 (hex) of the files that are as their manifest says; empty where there is no manifest.

    A file that is not named here has to be hashed.
    """
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        records = {name: FileRecord.model_validate(entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return {}
    return {name: record.sha256 for name, record in records.items() if is_unchanged(folder / name, record)}
