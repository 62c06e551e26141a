"""What of a results folder is archived: its files by kind, with their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from report.errors import ReportError

_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".out": "text/plain",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}


@dataclass(frozen=True)
class Kind:
    """A kind of files: where they lie below the results folder, and what they are."""

    name: str
    patterns: tuple[str, ...]
    what: str


KINDS = (
    Kind("configuration", ("platform.yaml", "jobs/*.yaml"), "what was to be run, as it was resolved"),
    Kind("plan", ("plan/*.json",), "the records that an experiment is to leave, with their fingerprints"),
    Kind("machine", ("machine.json", "audit/*.json"), "what a check found"),
    Kind("records", ("raw/*", "raw/superseded/*"), "a raw record of the engine"),
    Kind("tables", ("csv/*.csv",), "a table, computed from the records"),
    Kind("figures", ("figures/*.png", "figures/*.pdf"), "a figure, drawn from the tables"),
    Kind("claims", ("claims.csv", "claims.md"), "the verdicts on the paper's claims"),
    Kind("report", ("report.html",), "everything on one page that needs no other file"),
)


@dataclass(frozen=True)
class Archived:
    """A file of the results folder; ``path`` is relative to that."""

    path: str
    kind: Kind
    media_type: str
    num_bytes: int
    sha256: str


def inventory(results: Path) -> Iterator[Archived]:
    """Every file of a known kind, in the order of the kinds. Raises ReportError."""
    for kind in KINDS:
        for path in sorted(path for pattern in kind.patterns for path in results.glob(pattern)):
            # Locks and what a killed run left half written have a leading dot.
            if path.is_file() and not path.name.startswith("."):
                yield _archived(path, path.relative_to(results).as_posix(), kind)


def _archived(path: Path, relative: str, kind: Kind) -> Archived:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = path.stat().st_size
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}") from error
    return Archived(relative, kind, _MEDIA_TYPES.get(path.suffix, "application/octet-stream"), num_bytes, digest)
