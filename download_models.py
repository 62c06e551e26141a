"""Fetch the models of the hub that experiments need, or check the embedded ones: python download_models.py --help."""

from __future__ import annotations

from model_store.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
