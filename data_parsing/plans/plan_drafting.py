"""How a planned scenario drafts, as far as a table can say it: one drafter with one fixed tree, or less."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

from data_parsing.errors import ParsingError

Expansion = tuple[int, ...]
"""Children per leaf at each draft step (SpecInfer, section 3)."""

_PLANNED_BY_RANK = ("best", "auto")


@dataclass(frozen=True)
class PlannedDrafting:
    """Who drafts; what several drafters, or one that is no draft model, do not have is empty."""

    num_drafters: int = 0
    expansion: Expansion = ()
    """Of the fixed tree; empty without one."""
    selection: str = ""
    """How children are chosen: top_k, iid or without_replacement."""
    model: int | None = None
    """Which of the placement's draft models."""
    is_planned_by_rank: bool = False
    """Whether its tree changes, but never by what the draft says of the tokens at hand: only by ranks and costs."""

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is speculated."""
        return self.num_drafters == 0

    @property
    def tree_width(self) -> int | None:
        """Most children of a node; None without a fixed tree."""
        return max(self.expansion, default=None)

    @property
    def branching_step(self) -> int | None:
        """The first step, from 1, with several children; None for a chain."""
        return next((step for step, width in enumerate(self.expansion, start=1) if width > 1), None)

    @property
    def level_sizes(self) -> Expansion:
        """Nodes at each depth below the root."""
        return tuple(accumulate(self.expansion, mul))


def planned_drafting(item: dict[str, Any], where: str) -> PlannedDrafting:
    """From ``expansion`` and ``drafters`` of a scenario in a plan; raises ParsingError."""
    expansion, drafters = item.get("expansion", []), item.get("drafters", [])
    if not isinstance(drafters, list) or not all(isinstance(drafter, dict) for drafter in drafters):
        raise ParsingError(f"{where}: drafters must be a list of objects, received {drafters!r}")
    if not drafters:
        widths = _expansion(expansion, where)
        # An expansion by itself is short for one draft model that grows it by top-k.
        return PlannedDrafting(1, widths, "top_k", 0) if widths else PlannedDrafting()
    drafter = drafters[0]
    if len(drafters) > 1 or drafter.get("kind", "ssm") != "ssm":
        return PlannedDrafting(len(drafters))
    selection, model = drafter.get("selection", "top_k"), drafter.get("model", 0)
    if not isinstance(selection, str) or type(model) is not int:
        raise ParsingError(
            f"{where}: a drafter's selection must be a text and its model a number, received {drafter!r}"
        )
    widths = _expansion(drafter.get("expansion", []), where)
    return PlannedDrafting(1, widths, selection, model, drafter.get("tree") in _PLANNED_BY_RANK)


def _expansion(value: Any, where: str) -> Expansion:
    if not isinstance(value, list) or not all(type(width) is int and width >= 1 for width in value):
        raise ParsingError(f"{where}: expansion must be a list of positive integers, received {value!r}")
    return tuple(value)
