"""Fetch the models of the hub that experiments need, or check the embedded ones: python download_models.py --help."""

from __future__ import annotations

import sys

try:
    from model_store.cli import main
except ModuleNotFoundError as missing:  # this Python has not the packages
    print(
        f"error: {missing}; where: {sys.executable}; fix: run make setup, then .venv/bin/python download_models.py",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

if __name__ == "__main__":
    raise SystemExit(main())
