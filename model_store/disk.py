"""Room on the disk, asked for before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from treespec.errors import OutputError

UNITS = (("GB", 1e9, 3), ("MB", 1e6, 1), ("kB", 1e3, 1))
"""Name, bytes, and decimals to show."""


def in_units(num_bytes: float) -> str:
    """A number of bytes in the largest unit that it fills."""
    for name, size, decimals in UNITS:
        if num_bytes >= size:
            return f"{num_bytes / size:.{decimals}f} {name}"
    return f"{num_bytes:.0f} B"


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
            received=f"{in_units(free)} free",
            allowed=f"at least {in_units(num_bytes)}",
            fix="make room, or choose another --cache-folder",
        )
