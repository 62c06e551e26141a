"""Figures ``server_speedup`` and ``offloading_speedup``: speed-up over incremental decoding against the batch size."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.drawing.captions import coverage_of, left_out, nothing_yet, provenance
from figures.drawing.panels import (
    Group,
    batch_axis,
    drawn_modes,
    groups_of,
    name_gaps,
    panel_title,
    split_functional,
)
from figures.drawing.series import draw_series, line_handles
from figures.drawing.sheet import open_sheet, say_in_panel
from figures.drawing.style import FAINT, INK, MODE_MARKS, SMALL_TEXT
from figures.reading.published import Published
from figures.reading.tables import OK, PEERS, ScenarioRow

_PANEL_HEIGHT = 2.3  # inches
_SPECULATIVE = ("sequence", "tree", "tree_auto")
_ASIDE = {"sequence": -0.006, "tree": 0.006, "tree_auto": 0.018}  # of the axis, so that intervals can be told apart
_NO_BASELINE = "no baseline"
_HEADROOM = 1.12

_WHAT = (
    "Speed-up: median latency per generated token of incremental decoding over that of the mode, at the same batch "
    "size, over the prompts and repeats that both have. Bands and lines: 95% bootstrap interval."
)
_PUBLISHED_COLOUR = "#c0c0c0"
_BESIDE = 9  # points from the middle of a published value's mark to its label


def draw_speedup(rows: Sequence[ScenarioRow], published: Sequence[Published], about_published: str) -> Figure:
    """Draw one panel per placement that is planned to be timed.

    ``about_published`` says in the caption, where anything published is drawn, what it is.
    """
    rows, functional = split_functional([row for row in rows if row.scenario.mode not in PEERS])
    scenarios = [row.scenario for row in rows]
    groups, modes = groups_of(rows), drawn_modes(_SPECULATIVE, scenarios)
    outcomes = [_outcome(row) for row in rows if row.scenario.mode in _SPECULATIVE]
    beside = [_published_beside(group, groups, published) for group in groups]
    published_part = about_published if any(beside) else ""
    parts = [_WHAT, published_part, provenance(scenarios), coverage_of(outcomes), left_out(functional)]
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, group, known in zip(sheet.panels, groups, beside, strict=True):
        _draw_panel(panel, group.rows, known)
        panel_title(panel, group.size, [row.scenario for row in group.rows], group.weights)
    marks = [MODE_MARKS[mode] for mode in modes]
    sheet.legend(line_handles(marks), len(marks))
    return sheet.figure


def _published_beside(group: Group, groups: Sequence[Group], published: Sequence[Published]) -> Published | None:
    """What is published of a panel's size: of weights as they are stored, and streamed where any are."""
    any_offloaded = any(row.scenario.offload for other in groups for row in other.rows)
    of_paper = group.is_plain and group.is_streamed == any_offloaded
    return next((known for known in published if known.size == group.size and of_paper), None)


def _outcome(row: ScenarioRow) -> str:
    """OK where there is a speed-up to draw, else why there is none."""
    if row.speedup:
        return OK
    return _NO_BASELINE if row.latency_ms else row.scenario.status


def _draw_panel(panel: Axes, rows: Sequence[ScenarioRow], published: Published | None) -> None:
    batch_sizes = batch_axis(panel, [row.scenario for row in rows])
    panel.set_ylabel("speed-up over incremental")
    speculative = [row for row in rows if row.scenario.mode in _SPECULATIVE]
    measured = [row.speedup for row in speculative if row.speedup]
    if not measured:
        panel.set_yticks([])
        any_record = any(row.latency_ms for row in rows)
        empty = "no speed-up yet: no mode has a record and a baseline" if any_record else None
        say_in_panel(panel, empty or nothing_yet([row.scenario for row in rows]))
        return
    top = max([speedup.high for speedup in measured] + ([published.high] if published else []))
    panel.set_ylim(0, top * _HEADROOM)
    panel.axhline(1, color=INK, linewidth=0.9)
    if published:
        _draw_published(panel, published, batch_sizes)
    for mode in _SPECULATIVE:
        by_batch_size = {row.scenario.batch_size: row for row in speculative if row.scenario.mode == mode}
        points = [by_batch_size[b].speedup if b in by_batch_size else None for b in batch_sizes]
        aside = _ASIDE[mode] * len(batch_sizes)
        draw_series(panel, [place + aside for place in range(len(batch_sizes))], points, MODE_MARKS[mode])
    name_gaps(panel, _gaps(speculative, batch_sizes))


def _draw_published(panel: Axes, published: Published, batch_sizes: Sequence[int]) -> None:
    over = f" over {published.baseline}" if published.baseline else ""
    if published.by_batch_size:
        points = {place: published.by_batch_size.get(batch_size) for place, batch_size in enumerate(batch_sizes)}
        known = {place: value for place, value in points.items() if value is not None}
        panel.plot([*known], [*known.values()], color=_PUBLISHED_COLOUR, marker="_", markersize=14, linestyle="none")
        for place, value in known.items():
            panel.annotate(
                f"{value}×",
                (place, value),
                xytext=(-_BESIDE, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=SMALL_TEXT,
                color=FAINT,
            )
    else:
        panel.axhspan(published.low, published.high, color="#f0f0f0", zorder=0)
        for edge in (published.low, published.high):
            panel.axhline(edge, color=_PUBLISHED_COLOUR, linewidth=0.8, linestyle=":", zorder=0.5)
    # Above the panel: inside, measured points may lie anywhere.
    panel.set_title(
        f"grey: published{over}, {published.hardware}, {published.model}, {published.low}-{published.high}×",
        loc="right",
        fontsize=SMALL_TEXT,
        color=FAINT,
    )


def _gaps(rows: Sequence[ScenarioRow], batch_sizes: Sequence[int]) -> dict[int, list[str]]:
    """By place of the batch axis, the modes that have no point there and why."""
    return {
        place: [
            f"{row.scenario.mode}: {_outcome(row)}"
            for row in rows
            if row.scenario.batch_size == batch_size and _outcome(row) != OK
        ]
        for place, batch_size in enumerate(batch_sizes)
    }
