"""Records on their way: those that exist go to the driver's host, those that are whole come back."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cluster.errors import ClusterError
from cluster.jobs import COMMIT_SUFFIX, RECORD_SUFFIXES
from cluster.ssh import Connection, rsync


def push_records(connection: Connection, output_dir: Path, scenarios: Sequence[str], target: PurePosixPath) -> None:
    """Records of these scenarios to ``target``, so that the engine there skips what is done."""
    present = [name for scenario in scenarios for name in _files(scenario) if (output_dir / name).is_file()]
    if present:
        rsync(connection, [str(output_dir / name) for name in present], f"{target}/")


def fetch_records(connection: Connection, source: PurePosixPath, output_dir: Path, scenarios: Sequence[str]) -> int:
    """Bring back every committed record; returns how many are new or changed.

    They come into a folder of their own first, so that a transfer that breaks off leaves nothing behind; then each is
    moved in place, its meta file last. What stood in its way was moved to ``superseded`` there, and is
    moved there here.
    """
    with _staging(output_dir) as staged:
        rsync(connection, [f"{source}/"], str(staged), fetch=True)
        fresh = [name for name in scenarios if _is_new(staged, output_dir, name)]
        try:
            for scenario in fresh:
                _take(staged, output_dir, scenario)
        except OSError as error:
            raise ClusterError("records cannot be written", where=str(output_dir), received=error.strerror) from error
        return len(fresh)


def _take(staged: Path, output_dir: Path, scenario: str) -> None:
    """Move a record in place."""
    _take_superseded(staged / "superseded", output_dir / "superseded", scenario)
    for name in _files(scenario):
        if (staged / name).is_file():
            os.replace(staged / name, output_dir / name)
        else:
            (output_dir / name).unlink(missing_ok=True)  # a failed scenario has no rows


def _files(scenario: str) -> Iterator[str]:
    return (f"{scenario}{suffix}" for suffix in RECORD_SUFFIXES)


def _is_new(staged: Path, output_dir: Path, scenario: str) -> bool:
    theirs, ours = (folder / f"{scenario}{COMMIT_SUFFIX}" for folder in (staged, output_dir))
    return theirs.is_file() and not (ours.is_file() and filecmp.cmp(theirs, ours, shallow=False))


def _take_superseded(source: Path, target: Path, scenario: str) -> None:
    """Keep what the engine moved aside for this scenario, under a name that is free here."""
    for path in sorted(source.glob("*")) if source.is_dir() else []:
        # <scenario>.<first 8 digits of the fingerprint>[.<number>]<suffix>
        if path.name.startswith(f"{scenario}."):
            target.mkdir(exist_ok=True)
            os.replace(path, _free(target, path.name, scenario))


def _free(folder: Path, name: str, scenario: str) -> Path:
    rest = name.removeprefix(f"{scenario}.")
    identity, _, suffix = rest.partition(".")
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{scenario}.{identity}.{number}.{suffix}"
    return path


@contextmanager
def _staging(output_dir: Path) -> Iterator[Path]:
    """A folder on the same file system, removed at the end."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".collecting-", dir=output_dir))
    except OSError as error:
        raise ClusterError("records cannot be collected", where=str(output_dir), received=error.strerror) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
