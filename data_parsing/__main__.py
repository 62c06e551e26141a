"""Entry of ``python -m data_parsing``."""

from data_parsing.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
