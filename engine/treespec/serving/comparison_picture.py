"""A comparison as a picture: speed-ups by batch size, in a format that matplotlib writes."""

from __future__ import annotations

import io
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from treespec.errors import ConfigError
from treespec.files import write_atomically
from treespec.serving.comparison import Comparison, ComparisonRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"incremental": "#999999", "sequence": "#56B4E9", "tree": "#0072B2"}
_TITLE_WIDTH = 84  # characters of the title's size in the figure's width
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Formats by suffix, and what matplotlib would write into each that differs from run to run."""


def require_drawable(path: Path) -> None:
    """Refuse before anything is measured what could not be drawn after it. Raises ConfigError."""
    if path.suffix.lower() not in _METADATA:
        allowed = "a name that ends in " + ", ".join(_METADATA)
        raise ConfigError("the picture's format is not known", where="--png", received=path, allowed=allowed)
    if find_spec("matplotlib") is None:
        raise ConfigError("--png needs matplotlib", fix="install matplotlib, or leave --png out")


def write_comparison_picture(comparison: Comparison, path: Path) -> None:
    """As PNG, PDF or SVG; the path is one that ``require_drawable`` lets pass. Raises OutputError."""
    suffix, drawn = path.suffix.lower(), io.BytesIO()
    comparison_figure(comparison).savefig(drawn, format=suffix[1:], metadata=_METADATA[suffix])
    write_atomically(path, drawn.getvalue())


def comparison_figure(comparison: Comparison) -> Figure:
    """Bars, with intervals where there are any."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(6.4, 4.8), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    axes = figure.add_subplot()
    _draw_bars(axes, comparison)
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel("requests per batch")
    has_intervals = any(row.speedup_low is not None for row in comparison.rows)
    amount = "(median, 95 % interval)" if has_intervals else "(one sample)"
    axes.set_ylabel(f"speed-up over incremental\n{amount}")
    axes.margins(y=0.15)
    figure.suptitle(_title(comparison), fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw_bars(axes: Axes, comparison: Comparison) -> None:
    batch_sizes = sorted({row.batch_size for row in comparison.rows})
    modes = list(dict.fromkeys(row.mode for row in comparison.rows))
    width = 0.8 / len(modes)
    for row in comparison.rows:
        place = batch_sizes.index(row.batch_size)
        x = place + (modes.index(row.mode) - (len(modes) - 1) / 2) * width
        label = row.mode if place == 0 else None
        axes.bar(x, row.speedup, width, color=_COLOURS[row.mode], edgecolor="black", label=label)
        axes.annotate(f"{row.speedup:.2f}x", (x, _draw_interval(axes, x, row)), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(batch_sizes)), [str(size) for size in batch_sizes])


def _draw_interval(axes: Axes, x: float, row: ComparisonRow) -> float:
    """Returns where the mark of the row ends at the top."""
    if row.speedup_low is None or row.speedup_high is None:
        return row.speedup
    errors = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
    axes.errorbar(x, row.speedup, yerr=errors, capsize=3, color="black", linestyle="none")
    return row.speedup_high


def _title(comparison: Comparison) -> str:
    """Models in lines that fit."""
    models = (f"target: {comparison.target}", f"draft: {comparison.draft}")
    lines = [line for model in models for line in textwrap.wrap(model, _TITLE_WIDTH)]
    return "\n".join(lines if comparison.is_equal else [*lines, "OUTPUTS DIFFER, see the table"])
