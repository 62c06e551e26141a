"""A folder that appears when everything in it is written and verified, and not before."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from treespec.config import hash_file
from treespec.errors import CapacityError, OutputError, TreespecError
from treespec.files import write_atomically
from treespec.log import say

MANIFEST = "conversion.json"
SLACK_BYTES = 1 << 20  # configuration, index, manifest
MIB = 1 << 20
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Identity:
    """What a conversion is made from, and how; equal ones have equal results."""

    source_sha256: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class NewFolder:
    """The folder while it is filled, under another name."""

    path: Path
    digests: dict[str, str] = field(default_factory=dict)  # sha256 of every file that is verified

    def write(self, name: str, data: bytes) -> None:
        """A small file, read back. Raises OSError, OutputError."""
        with open(self.path / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.digests[name] = hash_file(self.path / name)
        if self.digests[name] != hashlib.sha256(data).hexdigest():
            raise OutputError("a file is not what was written", where=str(self.path / name), fix="check the disk")


def is_finished(output: Path, identity: Identity) -> bool:
    """Whether the folder is there and whole. Raises OutputError for one that is damaged or something else."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    manifest = _read_manifest(output)
    if manifest is None or any(manifest.get(key) != value for key, value in asdict(identity).items()):
        raise OutputError(
            "the output exists and is not this conversion",
            where=str(output),
            received="no conversion" if manifest is None else "one of another source or with other settings",
            allowed="a new or an empty folder, or this conversion finished",
            fix="choose another folder, or remove this one",
        )
    for name, digest in dict(manifest["files"]).items():
        path = output / name
        if not path.is_file() or hash_file(path) != digest:
            raise OutputError(
                "a converted model is damaged",
                where=str(path),
                received="another sha256 than when it was written" if path.is_file() else "no such file",
                fix="remove the folder and convert again",
            )
    return True


def _read_manifest(output: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else None


def require_space(output: Path, num_bytes: int) -> None:
    """Refuse a conversion that the disk has no room for. Raises CapacityError."""
    place = next(folder for folder in output.absolute().parents if folder.exists())
    free = shutil.disk_usage(place).free
    if num_bytes + SLACK_BYTES > free:
        raise CapacityError(
            "no room for the converted model",
            where=str(output),
            received=f"{-(-(num_bytes + SLACK_BYTES) // MIB)} MiB to write",
            allowed=f"{free // MIB} MiB free",
            fix="free some space, or choose another folder",
        )


@contextmanager
def new_folder(output: Path, identity: Identity) -> Iterator[NewFolder | None]:
    """A folder that becomes ``output`` when the block ends, and vanishes if it raises.

    None if another process finished the same conversion meanwhile. Raises CapacityError for a disk that fills up,
    OutputError.
    """
    output = output.absolute()
    prefix = f".{output.name}.{socket.gethostname()}."
    temporary = output.with_name(f"{prefix}{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(output.parent):
            if is_finished(output, identity):
                yield None
                return
            _remove_remains(output.parent, prefix)
            try:
                temporary.mkdir()
                folder = NewFolder(temporary)
                yield folder
                write_atomically(temporary / MANIFEST, _manifest(identity, folder.digests))
                _sync(temporary)
                _publish(temporary, output, identity)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _told(error, output) from error


def _manifest(identity: Identity, digests: dict[str, str]) -> str:
    return json.dumps({**asdict(identity), "files": digests}, indent=2) + "\n"


def _remove_remains(parent: Path, prefix: str) -> None:
    """Folders of processes of this host that were killed."""
    for left in parent.glob(f"{glob.escape(prefix)}*.tmp"):
        pid = left.name.removeprefix(prefix).removesuffix(".tmp")
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(left)


def _publish(temporary: Path, output: Path, identity: Identity) -> None:
    try:
        os.rename(temporary, output)
    except OSError:
        # Where folders cannot be locked (some network file systems), another process may have been first.
        if not is_finished(output, identity):
            raise
    _sync(output.parent)


@contextmanager
def _only_one(parent: Path) -> Iterator[None]:
    """One conversion at a time in a folder; its own lock, so that no file is left."""
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another conversion writes into {parent}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            say(f"{parent} cannot be locked ({error.strerror}): two conversions of one model would both be made")
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(error: OSError, output: Path) -> TreespecError:
    if error.errno in FULL:
        return CapacityError(
            "the disk is full, or its quota; nothing of the conversion was kept",
            where=str(output),
            received=error.strerror,
            fix="free some space and run the same command again",
        )
    return OutputError("the converted model cannot be written", where=str(output), received=str(error))
