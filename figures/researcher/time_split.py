"""Figure ``time_split``: which part of a step takes how much of its time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.bars import bar_handles
from figures.drawing.captions import coverage, left_out, nothing_yet, provenance
from figures.drawing.panels import panel_title, rows_by_size, split_functional
from figures.drawing.sheet import open_sheet, say_in_panel
from figures.drawing.style import FAINT, INK, PART_MARKS, SMALL_TEXT
from figures.reading.tables import MODES, STEP_PARTS, TimeSplitRow

_BAR_PITCH = 0.19  # inches
_BAR_HEIGHT = 0.78  # of the pitch
_GROUP_GAP = 0.5  # of the pitch, between batch sizes
_LEFT = 1.45  # inches: room for "incremental, batch 16"
_RIGHT_END = 1.14  # of a whole bar: room for the step's time
_SMALLEST_LABELLED = 0.07  # of the width: below it a number does not fit its segment

_WHAT = (
    "Share of each part in the time of all steps of all repeats. At the right: wall time per step of the target (one "
    "batched pass)."
)


def draw_time_split(rows: Sequence[TimeSplitRow]) -> Figure:
    """Draw one panel per size that is planned to be timed, one bar per scenario."""
    rows, functional = split_functional(rows)
    scenarios = [row.scenario for row in rows]
    caption = " ".join(filter(None, [_WHAT, provenance(scenarios), coverage(scenarios), left_out(functional)]))
    groups = {size: _ordered(of_size) for size, of_size in rows_by_size(rows).items()}
    heights = [max(1.0, (_places(of_size)[-1] + 1) * _BAR_PITCH) if of_size else 1.0 for of_size in groups.values()]
    sheet = open_sheet(heights, caption, left=_LEFT)
    for panel, (size, of_size) in zip(sheet.panels, groups.items(), strict=True):
        _draw_panel(panel, of_size)
        panel_title(panel, size, [row.scenario for row in of_size])
    marks = [PART_MARKS[part] for part in STEP_PARTS]
    sheet.legend(bar_handles(marks), len(marks))
    return sheet.figure


def _ordered(rows: Sequence[TimeSplitRow]) -> list[TimeSplitRow]:
    """By batch size, then our modes in their order, then others."""
    order = {mode: number for number, mode in enumerate(MODES)}
    return sorted(rows, key=lambda row: (row.scenario.batch_size, order.get(row.scenario.mode, len(order))))


def _places(rows: Sequence[TimeSplitRow]) -> list[float]:
    """The place of each bar from the top, in bar pitches, with a gap between batch sizes."""
    places: list[float] = []
    for number, row in enumerate(rows):
        is_new_group = number > 0 and row.scenario.batch_size != rows[number - 1].scenario.batch_size
        places.append(0.0 if not places else places[-1] + 1 + _GROUP_GAP * is_new_group)
    return places


def _draw_panel(panel: Axes, rows: Sequence[TimeSplitRow]) -> None:
    places = _places(rows)
    panel.set_xlim(0, _RIGHT_END)
    panel.spines["bottom"].set_bounds(0, 1)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    panel.set_xlabel("share of the step time", x=0.5 / _RIGHT_END)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    panel.set_yticks(places, [f"{row.scenario.mode}, batch {row.scenario.batch_size}" for row in rows])
    if places:
        panel.set_ylim(places[-1] + 0.7, -0.7)
    if not any(row.shares for row in rows):
        say_in_panel(panel, nothing_yet([row.scenario for row in rows]))
        return
    for row, place in zip(rows, places, strict=True):
        _draw_bar(panel, row, place)


def _draw_bar(panel: Axes, row: TimeSplitRow, place: float) -> None:
    if row.shares is None:
        panel.barh(place, 1, _BAR_HEIGHT, color="none", edgecolor=FAINT, linewidth=0.5, linestyle=":")
        panel.text(0.5, place, row.scenario.status, ha="center", va="center", fontsize=SMALL_TEXT, color=FAINT)
        return
    start = 0.0
    for part, share in row.shares.items():
        mark = PART_MARKS[part]
        panel.barh(
            place,
            share,
            _BAR_HEIGHT,
            left=start,
            color=mark.colour,
            hatch=mark.hatch,
            edgecolor=INK,
            linewidth=0.5,
        )
        if share >= _SMALLEST_LABELLED:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            panel.text(
                start + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=SMALL_TEXT - 0.5, bbox=box
            )
        start += share
    if row.step_time_ms is not None:
        panel.text(1.015, place, f"{row.step_time_ms:.3g} ms", va="center", fontsize=SMALL_TEXT, color=INK)
