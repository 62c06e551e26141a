"""One process at a time works on a model; whoever waits is told for whom."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from model_store.errors import unwritable
from treespec.log import say


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel releases it however the process ends. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # closed below
    except OSError as error:
        raise unwritable(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting: {file.read().strip() or 'another process'} holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        # The name is for whoever waits; where the disk is full, there is none.
        with suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"download_models.py, pid {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
