"""Files that are whole or not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from treespec.errors import OutputError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write under a temporary name that carries host and pid, then rename. Raises OutputError."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError("file cannot be written", where=str(path), received=error.strerror or str(error)) from error
