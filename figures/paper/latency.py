"""Figures ``server_latency`` and ``offloading_latency``: latency per token by mode and batch size.

They are figures 7 and 8 of the SpecInfer paper, as measured here.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.bars import GROUP_WIDTH, bar_handles, draw_bar, draw_gap, label_above
from figures.drawing.captions import coverage, left_out, provenance
from figures.drawing.panels import drawn_modes, groups_of, latency_axes, panel_title, split_functional
from figures.drawing.sheet import open_sheet
from figures.drawing.style import FAINT, INK, MODE_MARKS
from figures.reading.tables import MODES, PEERS, ScenarioRow

_PANEL_HEIGHT = 2.3  # inches
_HEADROOM = 1.15  # room for labels above the highest whisker
_NO_BASELINE = "n/a"

_WHAT = (
    "Bars: median over requests of the latency per generated token. Whiskers: 95% bootstrap interval over prompts and "
    "repeats. Labels: speed-up over incremental decoding at the same batch size."
)
_WHAT_PEER = (
    "{}: a third party with the same weights, prompts and threads. It is measured after our modes in a process of its "
    "own, not interleaved with them. Its batches are static: a request's latency is that of its whole batch."
)
_WHAT_NO_BASELINE = f"{_NO_BASELINE}: no incremental record of the same conditions to compare with."


def draw_latency(rows: Sequence[ScenarioRow], about: str = "") -> Figure:
    """Draw one panel per placement that is planned to be timed; ``about`` begins the caption."""
    rows, functional = split_functional(rows)
    scenarios = [row.scenario for row in rows]
    any_unlabelled = any(row.latency_ms and not row.speedup for row in rows if row.scenario.mode != "incremental")
    modes = drawn_modes(MODES, scenarios)
    peers = [_WHAT_PEER.format(MODE_MARKS[mode].label) for mode in modes if mode in PEERS]
    no_baseline = _WHAT_NO_BASELINE if any_unlabelled else ""
    parts = [about, _WHAT, *peers, no_baseline, provenance(scenarios), coverage(scenarios), left_out(functional)]
    groups = groups_of(rows)
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, group in zip(sheet.panels, groups, strict=True):
        _draw_panel(panel, group.rows, modes)
        panel_title(panel, group.size, [row.scenario for row in group.rows], group.weights)
    marks = [MODE_MARKS[mode] for mode in modes]
    sheet.legend(bar_handles(marks), len(marks))
    return sheet.figure


def _draw_panel(panel: Axes, rows: Sequence[ScenarioRow], modes: Sequence[str]) -> None:
    panel.tick_params(axis="x", length=0)
    batch_sizes = latency_axes(panel, rows, _HEADROOM)
    if not batch_sizes:
        return
    width = GROUP_WIDTH / len(modes)
    for row in rows:
        aside = (modes.index(row.scenario.mode) - (len(modes) - 1) / 2) * width
        _draw_bar(panel, row, batch_sizes.index(row.scenario.batch_size) + aside, width)


def _draw_bar(panel: Axes, row: ScenarioRow, place: float, width: float) -> None:
    latency = row.latency_ms
    if latency is None:
        draw_gap(panel, place, width, row.scenario.status)
        return
    draw_bar(panel, place, width, latency, MODE_MARKS[row.scenario.mode])
    if row.scenario.mode != "incremental":
        label = f"{row.speedup.value:.1f}×" if row.speedup else _NO_BASELINE
        label_above(panel, place, latency.top, label, width, INK if row.speedup else FAINT)
