"""Files that are whole or not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write under a temporary name that carries host and pid, then rename."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
