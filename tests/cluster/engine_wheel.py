"""The engine's wheel, built for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def build(source: Path, target: Path) -> Path:
    """The engine's wheel from a copy of its sources."""
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    (found,) = target.glob("*.whl")
    return found
