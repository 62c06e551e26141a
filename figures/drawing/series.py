"""Series as lines with markers and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures.drawing.style import INK, Mark
from figures.reading.cells import Measured

_BAND_OPACITY = 0.2
_STROKES = "_|x+"  # markers that are nothing but edge


def draw_line(panel: Axes, places: Sequence[float], values: Sequence[float], mark: Mark) -> None:
    """A line with its markers; a gap where a value is not a number."""
    panel.plot(
        places,
        values,
        color=mark.colour,
        marker=mark.marker,
        linestyle=mark.line,
        markeredgecolor=mark.colour if mark.marker in _STROKES else INK,
        markeredgewidth=0.5,
        markersize=5,
    )


def draw_series(
    panel: Axes, places: Sequence[float], points: Sequence[Measured | None], mark: Mark, *, band: bool = True
) -> None:
    """A line with its intervals, and a band between them unless too many lines are close; a gap at a missing point."""
    nothing = Measured(*[float("nan")] * 3)
    known = [point or nothing for point in points]
    lows, values, highs = ([getattr(point, end) for point in known] for end in ("low", "value", "high"))
    if band:
        panel.fill_between(places, lows, highs, color=mark.colour, alpha=_BAND_OPACITY, linewidth=0)
    panel.vlines(places, lows, highs, color=mark.colour, linewidth=1.0)
    draw_line(panel, places, values, mark)


def line_handles(marks: Iterable[Mark]) -> list[Line2D]:
    """What a legend shows of marks that are drawn as lines."""
    return [Line2D([], [], color=m.colour, marker=m.marker, linestyle=m.line, label=m.label) for m in marks]
