"""Talk to the user on stderr; stdout is for data."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """One line of talk."""
    print(f"treespec: {line}", file=sys.stderr, flush=True)
