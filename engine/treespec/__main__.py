"""``python -m treespec``."""

from treespec.cli import main

raise SystemExit(main())
