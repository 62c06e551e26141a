"""Splits the wall time of a loop into named parts."""

from __future__ import annotations

import time


class Stopwatch:
    """Charges the time between two calls to a part; whatever was not named is ``other``."""

    PARTS = ("draft", "build", "forward", "verify", "commit", "other")

    def __init__(self) -> None:
        self._started_ns = self._last_ns = time.monotonic_ns()
        self._ns = dict.fromkeys(self.PARTS, 0)

    def charge(self, part: str) -> None:
        """The time since the last call belongs to ``part``."""
        now = time.monotonic_ns()
        self._ns[part] += now - self._last_ns
        self._last_ns = now

    def now_us(self) -> int:
        """Microseconds since the start."""
        return (time.monotonic_ns() - self._started_ns) // 1000

    def split_us(self) -> dict[str, int]:
        """Microseconds per part; call right after a charge, so that they sum to the wall time."""
        return {part: ns // 1000 for part, ns in self._ns.items()}
