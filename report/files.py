"""Reads texts and writes outputs as a whole."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from report.errors import ReportError


def read_text(path: Path) -> str:
    """A file's text; bytes that are not UTF-8 are shown as such. Raises ReportError."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name that carries host and pid, then rename. Raises ReportError."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}") from error
