"""Room on the disk, asked for before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from treespec.errors import OutputError

GB = 1e9


def free_bytes(folder: Path) -> int:
    """Of the file system that a folder lies on, or will."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_room(folder: Path, num_bytes: int) -> None:
    """Raises OutputError naming what is needed and what is there."""
    if num_bytes > (free := free_bytes(folder)):
        raise OutputError(
            "no room",
            where=str(folder),
            received=f"{free / GB:.3f} GB free",
            allowed=f"at least {num_bytes / GB:.3f} GB",
            fix="make room, or choose another --cache-folder",
        )
