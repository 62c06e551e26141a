"""How figures split scenarios into panels and name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from matplotlib.axes import Axes

from figures.tables import SIZES, Scenario


class _Row(Protocol):
    @property
    def scenario(self) -> Scenario: ...


RowT = TypeVar("RowT", bound=_Row)


def own_settings(rows: Sequence[RowT]) -> list[RowT]:
    """One row per size, batch size and mode: that of the experiment's own settings.

    Names of scenarios with further settings append to the name of the one without, which is thus the shortest.
    """
    chosen: dict[tuple[str, int, str], RowT] = {}
    for row in rows:
        scenario = row.scenario
        known = chosen.setdefault((scenario.size, scenario.batch_size, scenario.mode), row)
        if len(scenario.name) < len(known.scenario.name):
            chosen[scenario.size, scenario.batch_size, scenario.mode] = row
    return list(chosen.values())


def split_functional(rows: Sequence[RowT]) -> tuple[list[RowT], list[Scenario]]:
    """The rows whose times may be drawn, and the functional scenarios of the others."""
    timed = [row for row in rows if not row.scenario.is_functional]
    return timed, [row.scenario for row in rows if row.scenario.is_functional]


def rows_by_size(rows: Sequence[RowT]) -> dict[str, list[RowT]]:
    """The rows of each planned size, small first; one group without a size if nothing is planned."""
    groups = {size: [row for row in rows if row.scenario.size == size] for size in SIZES}
    return {size: group for size, group in groups.items() if group} or {"": []}


def panel_title(panel: Axes, size: str, scenarios: Sequence[Scenario]) -> None:
    """Name a panel after its size and its target model."""
    targets = " and ".join(dict.fromkeys(scenario.target for scenario in scenarios))
    panel.set_title(f"{size}: {targets}" if targets else size)
