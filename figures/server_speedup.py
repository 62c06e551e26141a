"""Figure ``server_speedup``: speed-up over incremental decoding against the batch size."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.captions import coverage_of, left_out, nothing_yet, provenance
from figures.panels import panel_title, rows_by_size, split_functional
from figures.sheet import open_sheet, say_in_panel
from figures.style import FAINT, INK, MODE_MARKS, SMALL_TEXT
from figures.tables import OK, PEERS, Measured, PublishedRange, ServerRow

_PANEL_HEIGHT = 2.3  # inches
_SPECULATIVE = ("sequence", "tree")
_ASIDE = {"sequence": -0.03, "tree": 0.03}  # so that intervals of both can be told apart
_BAND_OPACITY = 0.2
_NO_BASELINE = "no baseline"
_HEADROOM = 1.12

_WHAT = (
    "Speed-up: median latency per generated token of incremental decoding over that of the mode, at the same batch "
    "size, over the prompts and repeats that both have. Bands and lines: 95% bootstrap interval."
)
_WHAT_PUBLISHED = (
    "Grey: the range that the SpecInfer paper gives for tree-based speculation over batch sizes 1 to 16, on other "
    "hardware and models and against other systems: not a result of this run."
)


def draw_server_speedup(rows: Sequence[ServerRow], published: Sequence[PublishedRange]) -> Figure:
    """Draw one panel per size that is planned to be timed."""
    rows, functional = split_functional([row for row in rows if row.scenario.mode not in PEERS])
    scenarios = [row.scenario for row in rows]
    groups = rows_by_size(rows)
    outcomes = [_outcome(row) for row in rows if row.scenario.mode in _SPECULATIVE]
    ranges = {known.size: known for known in published if known.size in groups}
    published_part = _WHAT_PUBLISHED if ranges else ""
    parts = [_WHAT, published_part, provenance(scenarios), coverage_of(outcomes), left_out(functional)]
    sheet = open_sheet([_PANEL_HEIGHT] * len(groups), " ".join(filter(None, parts)))
    for panel, (size, of_size) in zip(sheet.panels, groups.items(), strict=True):
        _draw_panel(panel, of_size, ranges.get(size))
        panel_title(panel, size, [row.scenario for row in of_size])
    marks = [MODE_MARKS[mode] for mode in _SPECULATIVE]
    handles = [Line2D([], [], color=m.colour, marker=m.marker, linestyle=m.line, label=m.label) for m in marks]
    sheet.legend(handles, len(handles))
    return sheet.figure


def _outcome(row: ServerRow) -> str:
    """OK where there is a speed-up to draw, else why there is none."""
    if row.speedup:
        return OK
    return _NO_BASELINE if row.latency_ms else row.scenario.status


def _draw_panel(panel: Axes, rows: Sequence[ServerRow], published: PublishedRange | None) -> None:
    batch_sizes = sorted({row.scenario.batch_size for row in rows})
    panel.set_xticks(range(len(batch_sizes)), [str(batch_size) for batch_size in batch_sizes])
    panel.set_xlim(-0.5, max(len(batch_sizes), 1) - 0.5)
    panel.set_xlabel("batch size")
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
        _draw_published(panel, published)
    for mode in _SPECULATIVE:
        by_batch_size = {row.scenario.batch_size: row for row in speculative if row.scenario.mode == mode}
        points = [by_batch_size[b].speedup if b in by_batch_size else None for b in batch_sizes]
        _draw_series(panel, mode, points)
    _draw_gaps(panel, speculative, batch_sizes)


def _draw_published(panel: Axes, published: PublishedRange) -> None:
    panel.axhspan(published.low, published.high, color="#f0f0f0", zorder=0)
    for edge in (published.low, published.high):
        panel.axhline(edge, color="#c0c0c0", linewidth=0.8, linestyle=":", zorder=0.5)
    # Above the panel: inside, measured points may lie anywhere.
    panel.set_title(
        f"grey: published, {published.hardware}, {published.model}, {published.low}-{published.high}×",
        loc="right",
        fontsize=SMALL_TEXT,
        color=FAINT,
    )


def _draw_series(panel: Axes, mode: str, points: Sequence[Measured | None]) -> None:
    """A line with its band; a gap where a point is not there."""
    mark = MODE_MARKS[mode]
    nothing = Measured(*[float("nan")] * 3)
    known = [point or nothing for point in points]
    places = [place + _ASIDE[mode] for place in range(len(points))]
    lows, values, highs = ([getattr(point, end) for point in known] for end in ("low", "value", "high"))
    panel.fill_between(places, lows, highs, color=mark.colour, alpha=_BAND_OPACITY, linewidth=0)
    panel.vlines(places, lows, highs, color=mark.colour, linewidth=1.0)
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


def _draw_gaps(panel: Axes, rows: Sequence[ServerRow], batch_sizes: Sequence[int]) -> None:
    """Name, at the foot of each batch size, the modes that have no point there and why."""
    for place, batch_size in enumerate(batch_sizes):
        reasons = [
            f"{row.scenario.mode}: {_outcome(row)}"
            for row in rows
            if row.scenario.batch_size == batch_size and _outcome(row) != OK
        ]
        panel.annotate(
            "\n".join(reasons),
            (place, 0),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL_TEXT,
            color=FAINT,
        )
