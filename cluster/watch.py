"""One running command per host: its lines with the host's name, its heartbeat, and how it ended."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from cluster.causes import Ending, lost, told_ending
from cluster.ssh import Connection

HEARTBEAT_S = 2.0
KEPT_LINES = 400


class Watched:
    """A keeper on one host; ``ending`` is set once, when it is over."""

    def __init__(self, connection: Connection, words: Sequence[str], say: Callable[[str], None]) -> None:
        self.connection = connection
        self.ending: Ending | None = None
        self._say = say
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._program = connection.start(words)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def beat(self) -> None:
        """Tell the keeper that somebody still watches; that it cannot be told, the reader learns."""
        if self.ending is None:
            self._program.send(b".")

    def hang_up(self) -> None:
        """Let the keeper end the run: its input ends. What it still says is kept and not shown."""
        self._say = _keep_quiet
        self._program.end_input()

    def join(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        self._reader.join(timeout_s)
        return self.ending is not None

    def _read(self) -> None:
        rest = b""
        while data := self._program.read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)
        if rest:
            self._take(rest)
        status = self._program.status()
        host, is_gone = self.connection.name, not self.connection.is_open
        self.ending = lost(host) if status == -1 and is_gone else told_ending(host, status, list(self._lines))

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._lines.append(text)
        try:
            self._say(f"[{self.connection.name}] {text}")
        except OSError:
            self._say = _keep_quiet  # nobody reads any more; how it ended still counts


def _keep_quiet(line: str) -> None:
    """What ranks say while they are being ended explains nothing."""


def watch(running: Sequence[Watched], grace_s: float) -> list[Ending]:
    """Wait until all have ended, or until one has failed and the others had ``grace_s`` to tell why.

    Returns how those ended that did. What still runs then is for the caller to stop.
    """
    deadline = float("inf")
    while any(item.ending is None for item in running) and time.monotonic() < deadline:
        for item in running:
            item.beat()
        started = time.monotonic()
        while time.monotonic() < min(started + HEARTBEAT_S, deadline):
            endings = [item.ending for item in running if item.ending is not None]
            if len(endings) == len(running) or any(ending.is_cause for ending in endings):
                return endings
            if any(ending.status != 0 for ending in endings):
                deadline = min(deadline, time.monotonic() + grace_s)
            time.sleep(0.05)
    return [item.ending for item in running if item.ending is not None]
