"""Progress in bytes: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from model_store.disk import in_units
from treespec.log import say

BAR_WIDTH = 30
BAR_S = 0.2
LINE_S = 30.0


class Progress:
    """Counts bytes of one file; says little where nobody watches."""

    def __init__(self, what: str, num_bytes: int, num_done: int = 0) -> None:
        self._what, self._num_bytes, self._num_done, self._num_before = what, num_bytes, num_done, num_done
        self._started = self._told = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def advance(self, num_bytes: int) -> None:
        """So many more; negative where they have to be fetched again."""
        self._num_done += num_bytes
        now = time.monotonic()
        if now - self._told < (BAR_S if self._is_terminal else LINE_S):
            return
        self._told = now
        if self._is_terminal:
            filled = round(BAR_WIDTH * self._num_done / max(self._num_bytes, 1))
            bar = "#" * filled + "-" * (BAR_WIDTH - filled)
            print(f"\r\x1b[K[{bar}] {self._state(now)}  {self._what}", end="", file=sys.stderr, flush=True)
        else:
            say(f"{self._what}: {self._state(now)}")

    def finish(self) -> None:
        """The file is there, whole."""
        if self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
        kept = f", {in_units(self._num_before)} of it were here" if self._num_before else ""
        say(f"{self._what}: {in_units(self._num_bytes)}{kept}")

    def _state(self, now: float) -> str:
        rate = max((self._num_done - self._num_before) / max(now - self._started, 1e-3), 1.0)
        left = (self._num_bytes - self._num_done) / rate
        return f"{in_units(self._num_done)} of {in_units(self._num_bytes)}, {in_units(rate)}/s, {left:.0f} s left"
