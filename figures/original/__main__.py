"""Entry of ``python -m figures.original``."""

from figures.original.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
