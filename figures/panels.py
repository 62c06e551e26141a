"""How figures split scenarios into panels and name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from matplotlib.axes import Axes

from figures.style import FAINT, INK, SMALL_TEXT, Mark
from figures.tables import PEERS, SIZES, Scenario


class _Row(Protocol):
    @property
    def scenario(self) -> Scenario: ...


RowT = TypeVar("RowT", bound=_Row)


def own_settings(rows: Sequence[RowT]) -> list[RowT]:
    """One row per placement, batch size and mode: that of the experiment's own settings.

    Names of scenarios with further settings append to the name of the one without, which is thus the shortest.
    """
    chosen: dict[tuple[object, ...], RowT] = {}
    for row in rows:
        scenario = row.scenario
        key = (scenario.size, scenario.offload, scenario.quantisation, scenario.batch_size, scenario.mode)
        known = chosen.setdefault(key, row)
        if len(scenario.name) < len(known.scenario.name):
            chosen[key] = row
    return list(chosen.values())


def split_functional(rows: Sequence[RowT]) -> tuple[list[RowT], list[Scenario]]:
    """The rows whose times may be drawn, and the functional scenarios of the others."""
    timed = [row for row in rows if not row.scenario.is_functional]
    return timed, [row.scenario for row in rows if row.scenario.is_functional]


def rows_by_size(rows: Sequence[RowT]) -> dict[str, list[RowT]]:
    """The rows of each planned size, small first; one group without a size if nothing is planned."""
    groups = {size: [row for row in rows if row.scenario.size == size] for size in SIZES}
    return {size: group for size, group in groups.items() if group} or {"": []}


@dataclass(frozen=True)
class Group(Generic[RowT]):
    """The rows of one panel: one model size, its weights kept in one way."""

    size: str
    weights: str
    """How they are kept, in words; "" where all rows of the figure keep them resident and as they are stored."""
    rows: list[RowT]

    @property
    def is_plain(self) -> bool:
        """Whether the weights are as they are stored."""
        return all(row.scenario.quantisation is None for row in self.rows)

    @property
    def is_streamed(self) -> bool:
        """Whether a device does not hold all weights."""
        return any(row.scenario.offload for row in self.rows)


def groups_of(rows: Sequence[RowT]) -> list[Group[RowT]]:
    """One group per size and way of keeping the weights, in the order of the plan; an empty one if nothing is."""
    any_streamed = any(row.scenario.offload for row in rows)
    groups = []
    for size, of_size in rows_by_size(rows).items():
        by_weights: dict[str, list[RowT]] = {}
        for row in of_size:
            by_weights.setdefault(weights(row.scenario, any_streamed), []).append(row)
        groups += [Group(size, how, of_group) for how, of_group in (by_weights or {"": []}).items()]
    return groups


def weights(scenario: Scenario, any_streamed: bool) -> str:
    """How the target's weights are kept, in words."""
    place = f"streamed from {scenario.offload}" if scenario.offload else "resident" if any_streamed else ""
    return ", ".join(filter(None, [place, scenario.quantisation]))


def panel_title(panel: Axes, size: str, scenarios: Sequence[Scenario], how: str = "") -> None:
    """Name a panel after its size, its target model and how that keeps its weights."""
    targets = " and ".join(dict.fromkeys(scenario.target for scenario in scenarios))
    named = f"{size}: {targets}" if targets else size
    panel.set_title(", ".join(filter(None, [named, how])))


def drawn_modes(candidates: Sequence[str], scenarios: Sequence[Scenario]) -> list[str]:
    """The paper's modes of the candidates, and the others where they are planned."""
    planned = {scenario.mode for scenario in scenarios}
    return [mode for mode in candidates if mode in planned or mode not in ("tree_auto", *PEERS)]


def batch_axis(panel: Axes, scenarios: Sequence[Scenario]) -> list[int]:
    """Let the x axis be the batch sizes, evenly spaced; returns them in order."""
    batch_sizes = sorted({scenario.batch_size for scenario in scenarios})
    panel.set_xticks(range(len(batch_sizes)), [str(batch_size) for batch_size in batch_sizes])
    panel.set_xlim(-0.5, max(len(batch_sizes), 1) - 0.5)
    panel.set_xlabel("batch size")
    return batch_sizes


def name_gaps(panel: Axes, reasons: Mapping[int, Sequence[str]]) -> None:
    """Say, at the foot of the panel, what has no point at a place of the batch axis and why."""
    for place, told in reasons.items():
        panel.annotate(
            "\n".join(told),
            (place, 0),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL_TEXT,
            color=FAINT,
        )


def draw_line(panel: Axes, places: Sequence[float], values: Sequence[float], mark: Mark) -> None:
    """A line with its markers; a gap where a value is not a number."""
    panel.plot(
        places,
        values,
        color=mark.colour,
        marker=mark.marker,
        linestyle=mark.line,
        markeredgecolor=INK,
        markeredgewidth=0.5,
        markersize=5,
    )
