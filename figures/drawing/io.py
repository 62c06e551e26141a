"""Writes a figure as PDF and PNG: whole files only, and the same bytes for the same data."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from figures.errors import FigureError

PNG_DPI = 200

# Dates and program versions would make equal figures differ.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"Creator": "treespec figures", "Producer": None, "CreationDate": None},
    "png": {"Software": None},
}


def save_figure(figure: Figure, output_dir: Path, name: str) -> list[Path]:
    """Write ``<name>.pdf`` and ``<name>.png``; returns their paths. Existing files are replaced in one step each."""
    return [_save(figure, output_dir / f"{name}.{kind}", kind) for kind in _METADATA]


def _said(figure: Figure, kind: str) -> dict[str, str]:
    """The caption as text inside the PNG, so that whatever shows the picture can say it to those who do not see it."""
    return {"Description": " ".join(text.get_text() for text in figure.texts)} if kind == "png" else {}


def _save(figure: Figure, path: Path, kind: str) -> Path:
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=kind, dpi=PNG_DPI, metadata=_METADATA[kind] | _said(figure, kind))
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FigureError(f"{path}: figure cannot be written: {error.strerror or error}") from error
    return path
