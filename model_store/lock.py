"""models/hub.lock.json: the revision of each model and the sha256 of its files, as they were first fetched."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from treespec.config import StrictModel
from treespec.errors import InputFileError
from treespec.files import write_atomically

GIT_HASH = r"^[0-9a-f]{40}$"


class Borrowed(StrictModel):
    """Where a file comes from that the model's own repository lacks."""

    repository: str
    revision: str = Field(pattern=GIT_HASH)


class LockedFile(StrictModel):
    """What a file of the hub has to be."""

    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    borrowed: Borrowed | None = None


class LockedModel(StrictModel):
    """A model as it was first fetched."""

    revision: str = Field(pattern=GIT_HASH)
    files: dict[str, LockedFile]


_LOCK = TypeAdapter(dict[str, LockedModel])


def read_lock(path: Path) -> dict[str, LockedModel]:
    """Repository -> what it is pinned to; empty where nothing is pinned yet. Raises InputFileError."""
    try:
        return _LOCK.validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        fix = "restore it with git, or delete it and run once with the network at hand"
        raise InputFileError("lock file cannot be read", where=str(path), received=_reason(error), fix=fix) from error


def pin(path: Path, repository: str, model: LockedModel) -> None:
    """Write one model's entry and leave the others; downloads that end at once wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        locked = read_lock(path)
        if locked.get(repository) != model:
            entries = {name: _plain(entry) for name, entry in sorted((locked | {repository: model}).items())}
            write_atomically(path, json.dumps(entries, indent=1) + "\n")


def _plain(model: LockedModel) -> dict[str, object]:
    return model.model_dump(mode="json", exclude_none=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error).splitlines()[0]
