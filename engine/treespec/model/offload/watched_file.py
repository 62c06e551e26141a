"""A weight file that is read again and again while others might touch it."""

from __future__ import annotations

import os
from pathlib import Path

from treespec.errors import CheckpointError


class WatchedFile:
    """Read as what it was when it was opened. Raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this object)
            self._state = _state_of(os.fstat(self._file.fileno()))
        except OSError as error:
            raise self._lost(error.strerror) from error

    def require_unchanged(self) -> None:
        """What stands at this path is still the file that was opened; not a new one, nor shorter, nor gone."""
        try:
            state = _state_of(os.stat(self.path))
        except OSError as error:
            raise self._lost(error.strerror) from error
        if state != self._state:
            raise self._lost("another file, or other contents, than when it was opened")

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from ``offset``; returns the bytes read."""
        done = 0
        while done < len(buffer):
            try:
                num_bytes = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
            except OSError as error:
                raise self._lost(error.strerror) from error
            if num_bytes == 0:
                raise self._lost(f"it ends at byte {offset + done}")
            done += num_bytes
        return done

    def forget(self, offset: int, num_bytes: int) -> None:
        """Drop what was read from the page cache."""
        os.posix_fadvise(self._file.fileno(), offset, num_bytes, os.POSIX_FADV_DONTNEED)

    def _lost(self, received: object) -> CheckpointError:
        return CheckpointError(
            "weight file is not what it was while weights are streamed from it",
            where=str(self.path),
            received=received,
            fix="put the file back and run the same command again; what is finished is kept",
        )


def _state_of(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
