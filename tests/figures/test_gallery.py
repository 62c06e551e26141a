"""The workflow asks for the figures that the gallery draws."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from figures.gallery import FIGURES

RULE = Path(__file__).parents[2] / "rules/figures.smk"


def test_the_rule_names_every_figure_in_the_gallerys_order() -> None:
    found = re.search(r"^FIGURE_NAMES = (\[.*?^\])", RULE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, "the rule has a list of names"
    assert ast.literal_eval(found[1]) == list(FIGURES)
