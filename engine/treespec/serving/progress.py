"""Progress of a job: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from treespec.log import say

BAR_WIDTH = 30


class Progress:
    """Counts finished passes; a pass is one scenario served once."""

    def __init__(self, num_passes: int) -> None:
        self._num_passes = num_passes
        self._num_done = 0
        self._started = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def advance(self, what: str) -> None:
        """One more pass is done."""
        self._num_done += 1
        elapsed = time.monotonic() - self._started
        left = elapsed / self._num_done * (self._num_passes - self._num_done)
        if not self._is_terminal:
            say(f"[{self._num_done}/{self._num_passes}] {what}, about {left:.0f} s left")
            return
        filled = round(BAR_WIDTH * self._num_done / self._num_passes)
        bar = "#" * filled + "-" * (BAR_WIDTH - filled)
        end = "\n" if self._num_done == self._num_passes else ""
        print(
            f"\r\x1b[K[{bar}] {self._num_done}/{self._num_passes} {left:4.0f} s left  {what}", end=end, file=sys.stderr
        )
        sys.stderr.flush()
