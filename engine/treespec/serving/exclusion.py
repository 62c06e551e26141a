"""One measuring run at a time: per results folder and per host."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from treespec.errors import OutputError
from treespec.log import say


@contextmanager
def exclusive_run(output_dir: Path) -> Iterator[None]:
    """Hold the locks of the results folder and of this host's devices; waits for the holder, naming it."""
    locks = [output_dir / ".lock", Path(tempfile.gettempdir()) / f"treespec-{os.getuid()}.lock"]
    with ExitStack() as stack:
        for path in locks:
            stack.enter_context(_locked(path))
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            say(f"waiting: {holder} holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        # The name is for whoever waits; where the disk is full, there is none.
        with suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"treespec run, pid {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _opened(path: Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise OutputError("lock file cannot be opened", where=str(path), received=error.strerror) from error
