"""Commands in docs/ can be run as they are shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
COMMAND_LINE = re.compile(r"^\s*(?:\$ )?(?:treespec|snakemake|python) \S", re.MULTILINE)
ACTIVATION = "activated environment (`. .venv/bin/activate`)"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_page_with_commands_says_where_they_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = COMMAND_LINE.search(text)
    if found is not None:
        assert ACTIVATION in text[: found.start()]
