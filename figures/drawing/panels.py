"""How figures split scenarios into panels and name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from matplotlib.axes import Axes

from figures.drawing.captions import nothing_yet
from figures.drawing.sheet import say_in_panel
from figures.drawing.style import FAINT, SMALL_TEXT
from figures.reading.tables import PEERS, SIZES, Scenario, ScenarioRow


class _Row(Protocol):
    @property
    def scenario(self) -> Scenario: ...


RowT = TypeVar("RowT", bound=_Row)


def own_settings(rows: Sequence[RowT], place: Callable[[Scenario], object]) -> list[RowT]:
    """One row per place on the paper: that of the experiment's own settings.

    Names of scenarios with further settings append to the name of the one without, which is thus the shortest.
    """
    chosen: dict[object, RowT] = {}
    for row in rows:
        key = place(row.scenario)
        known = chosen.setdefault(key, row)
        if len(row.scenario.name) < len(known.scenario.name):
            chosen[key] = row
    return list(chosen.values())


def by_placement_and_mode(scenario: Scenario) -> object:
    """Its place where a panel is a placement, with a batch axis and a mark per mode."""
    return scenario.size, scenario.offload, scenario.quantisation, scenario.batch_size, scenario.mode


def split_functional(rows: Sequence[RowT]) -> tuple[list[RowT], list[Scenario]]:
    """The rows whose times may be drawn, and the functional scenarios of the others."""
    timed = [row for row in rows if not row.scenario.is_functional]
    return timed, [row.scenario for row in rows if row.scenario.is_functional]


def rows_by_size(rows: Sequence[RowT]) -> dict[str, list[RowT]]:
    """The rows of each planned size, small first; one group without a size if nothing is planned."""
    groups = {size: [row for row in rows if row.scenario.size == size] for size in SIZES}
    return {size: group for size, group in groups.items() if group} or {"": []}


def rows_by_decoding(rows: Sequence[RowT]) -> dict[tuple[str, str], list[RowT]]:
    """The rows of each planned size and way of decoding, small and greedy first; one empty group if nothing is."""
    groups: dict[tuple[str, str], list[RowT]] = {}
    for size, of_size in rows_by_size(rows).items():
        for row in sorted(of_size, key=lambda row: row.scenario.decoding or ""):
            groups.setdefault((size, row.scenario.decoding or ""), []).append(row)
    return groups or {("", ""): []}


@dataclass(frozen=True)
class Group:
    """The rows of one panel: one model size, its weights kept in one way."""

    size: str
    weights: str
    """How they are kept, in words; "" where all rows of the figure keep them resident and as they are stored."""
    rows: list[ScenarioRow]

    @property
    def is_plain(self) -> bool:
        """Whether the weights are as they are stored."""
        return all(row.scenario.quantisation is None for row in self.rows)

    @property
    def is_streamed(self) -> bool:
        """Whether a device does not hold all weights."""
        return _is_streamed(self.rows)


def groups_of(rows: Sequence[ScenarioRow]) -> list[Group]:
    """One group per size and way of keeping the weights, in the order of the plan; an empty one if nothing is."""
    any_streamed = any(row.scenario.offload for row in rows)
    return [
        Group(size, weights(of_group, any_streamed) if of_group else "", of_group)
        for size, of_size in rows_by_size(rows).items()
        for of_group in rows_by_weights(of_size) or [[]]
    ]


def rows_by_weights(rows: Sequence[ScenarioRow]) -> list[list[ScenarioRow]]:
    """The rows of each way of keeping the weights, in the order of the plan."""
    groups: dict[object, list[ScenarioRow]] = {}
    for row in rows:
        groups.setdefault((row.scenario.offload, row.scenario.quantisation), []).append(row)
    return list(groups.values())


def weights(rows: Sequence[ScenarioRow], any_streamed: bool) -> str:
    """How the target's weights are kept, in words, by rows that all keep them alike."""
    scenario = rows[0].scenario
    if _is_streamed(rows):
        place = f"streamed from {scenario.offload}"
    elif scenario.offload:
        place = "fits without streaming"
    else:
        place = "resident" if any_streamed else ""
    return ", ".join(filter(None, [place, scenario.quantisation]))


def _is_streamed(rows: Sequence[ScenarioRow]) -> bool:
    """Whether weights are streamed: where they may be, unless a record tells that all of them fit."""
    return any(row.scenario.offload for row in rows) and not any(row.streamed_bytes == 0 for row in rows)


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


def latency_axes(panel: Axes, rows: Sequence[ScenarioRow], headroom: float) -> list[int]:
    """Latency against batch sizes, with ``headroom`` times the highest whisker; returns the batch sizes in order.

    None where no row has a latency, which the panel then says.
    """
    scenarios = [row.scenario for row in rows]
    batch_sizes = batch_axis(panel, scenarios)
    panel.set_ylabel("per-token latency (ms)")
    tops = [row.latency_ms.top for row in rows if row.latency_ms]
    if not tops:
        panel.set_yticks([])
        say_in_panel(panel, nothing_yet(scenarios))
        return []
    panel.set_ylim(0, max(tops) * headroom)
    return batch_sizes


def name_gaps(panel: Axes, reasons: Mapping[int, Sequence[str]] | Mapping[float, Sequence[str]]) -> None:
    """Say, at the foot of the panel, what has no point at a place of the x axis and why."""
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
