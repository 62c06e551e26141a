"""Figures 7 and 8 of the SpecInfer paper, from logs of its original artifact."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures.drawing.sheet import open_sheet, say_in_panel
from figures.drawing.style import FAINT, INK, MODE_MARKS, SMALL_TEXT
from figures.original.logs import MODES, Log, Logs
from figures.reading.published import Published
from figures.reading.tables import SIZES

_PANEL_HEIGHT = 2.3  # inches
_GROUP_WIDTH = 0.86  # of the distance between two batch sizes
_HEADROOM = 1.15
_PUBLISHED_COLOUR = "#808080"
_NUM_NAMED = 3

_WHAT = (
    "Not measured by this project: latency per token as logs of the original artifact tell it, by its own formula (sum "
    "of latencies / 128 tokens per request, whatever was generated)."
)
_NO_INTERVAL = "One run each: no interval."
_SPEEDUP = (
    "Labels: speed-up over incremental decoding at the same batch size. Grey brackets: where tree-based speculation "
    "would stand with the range of speed-ups that the SpecInfer paper gives (figure 7)."
)
_OFFLOADING = (
    "The artifact's offloading experiment measures sequence-based speculation alone; what the paper gives (figure 8) "
    "is over FlexGen, whose latency is in no log."
)


def draw_latency(family: str, found: Logs, published: Sequence[Published], source: str) -> Figure:
    """One panel per size that has a log; ``source`` says in the caption where the logs come from."""
    about = _SPEEDUP if family == "server" else _OFFLOADING
    caption = " ".join(filter(None, [_WHAT, f"Logs: {source}.", _NO_INTERVAL, about, _told(found)]))
    logs = found.runs
    sizes = [size for size in SIZES if any(log.size == size for log in logs)] or [""]
    sheet = open_sheet([_PANEL_HEIGHT] * len(sizes), caption)
    for panel, size in zip(sheet.panels, sizes, strict=True):
        own = [log for log in logs if log.size == size]
        known = next((item for item in published if item.size == size), None)
        _draw_panel(panel, own, known if family == "server" else None)
        panel.set_title(size)
    marks = [MODE_MARKS[mode] for mode in MODES if family == "server" or mode == "sequence"]
    sheet.legend((Patch(facecolor=m.colour, hatch=m.hatch, edgecolor=INK, label=m.label) for m in marks), len(marks))
    return sheet.figure


def _told(found: Logs) -> str:
    """How many runs are drawn, what there is to say of single ones, and which files tell no experiment."""
    num_drawn = sum(log.latency_ms is not None for log in found.runs)
    remarks = "; ".join(f"{log.file}: {log.remarks}" for log in found.runs if log.remarks)
    told = f"{num_drawn} of {len(found.runs)} logs are drawn." + (f" {remarks}." if remarks else "")
    if not found.unknown:
        return told
    named = ", ".join(found.unknown[:_NUM_NAMED]) + (", ..." if len(found.unknown) > _NUM_NAMED else "")
    return f"{told} Not drawn, for a name that the artifact's scripts do not give: {len(found.unknown)} ({named})."


def _draw_panel(panel: Axes, logs: Sequence[Log], published: Published | None) -> None:
    panel.set_ylabel("per-token latency (ms)")
    panel.set_xlabel("batch size")
    latencies = {(log.batch_size, log.mode): log.latency_ms for log in logs if log.latency_ms is not None}
    batch_sizes = sorted({log.batch_size for log in logs})
    panel.set_xticks(range(len(batch_sizes)), [str(batch_size) for batch_size in batch_sizes])
    panel.set_xlim(-0.5, max(len(batch_sizes), 1) - 0.5)
    panel.tick_params(axis="x", length=0)
    if not latencies:
        panel.set_yticks([])
        say_in_panel(panel, "no whole entry in any log" if logs else "no logs")
        return
    panel.set_ylim(0, max(latencies.values()) * _HEADROOM)
    modes = [mode for mode in MODES if any(log.mode == mode for log in logs)]
    width = _GROUP_WIDTH / len(modes)
    for place, batch_size in enumerate(batch_sizes):
        incremental = latencies.get((batch_size, "incremental"))
        for number, mode in enumerate(modes):
            at = place + (number - (len(modes) - 1) / 2) * width
            _draw_bar(panel, at, width, mode, latencies.get((batch_size, mode)), incremental)
            if mode == "tree" and published and incremental is not None:
                _draw_published(panel, at, width, incremental / published.high, incremental / published.low)


def _draw_bar(
    panel: Axes, at: float, width: float, mode: str, latency_ms: float | None, incremental_ms: float | None
) -> None:
    if latency_ms is None:
        panel.text(at, 0, " missing", ha="center", va="bottom", rotation=90, fontsize=SMALL_TEXT, color=FAINT)
        return
    mark = MODE_MARKS[mode]
    panel.bar(at, latency_ms, width, color=mark.colour, hatch=mark.hatch, edgecolor=INK, linewidth=0.6)
    if mode != "incremental" and incremental_ms is not None:
        panel.annotate(
            f"{incremental_ms / latency_ms:.1f}×",
            (at, latency_ms),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL_TEXT,
        )


def _draw_published(panel: Axes, at: float, width: float, low_ms: float, high_ms: float) -> None:
    """A bracket beside the bar, so that the bar's label stays free."""
    edge, tip = at + width * 0.62, at + width * 0.5
    panel.plot([tip, edge, edge, tip], [low_ms, low_ms, high_ms, high_ms], color=_PUBLISHED_COLOUR, linewidth=1.2)
