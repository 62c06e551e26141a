"""How long a launch waits for what, and whom it tells meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Talk = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """Time limits in seconds; ``poll_s`` is the pause between two looks."""

    poll_s: float = 5
    boot_s: float = 900
    ssh_s: float = 300
    console_s: float = 90
    gone_s: float = 900
    # A new instance is in listings only some time after it was asked for.
    listed_s: float = 30
