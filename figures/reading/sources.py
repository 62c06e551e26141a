"""Where figures read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sources:
    """The folders that a figure is drawn from."""

    csv_dir: Path
    paper_dir: Path
    """Published numbers; what is not there is not drawn."""
