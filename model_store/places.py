"""Where things are kept, unless a command says otherwise; relative to the repository's root."""

from __future__ import annotations

from pathlib import Path

CACHE = Path("models/hub")
CATALOGUE = Path("config/models.yaml")
LOCK_FILE = Path("models/hub.lock.json")
