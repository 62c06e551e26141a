"""One look for all figures: readable in grey and by colour-blind readers, because every mark has its own pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FONT = "DejaVu Sans"  # shipped with matplotlib: the same everywhere

RC: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # fonts are embedded as TrueType, so that text stays text
    "text.hinting": "no_hinting",  # else letters are as wide as pixels allow, and PNG and PDF break lines differently
    "text.parse_math": False,  # labels come from data; a dollar sign is a dollar sign
}

SMALL_TEXT = 7.0
"""Points: labels on marks, captions."""

FAINT = "#707070"
"""Text and lines that must not compete with data."""

INK = "#222222"


@dataclass(frozen=True)
class Mark:
    """How one series is drawn."""

    label: str
    colour: str
    hatch: str
    marker: str = "o"
    line: Literal["-", "--", "-.", ":"] = "-"


MODE_MARKS = {
    "incremental": Mark("incremental", "#c8c8c8", ""),
    "sequence": Mark("sequence-based speculation", "#e69f00", "////", "s", "--"),
    "tree": Mark("tree-based speculation", "#0072b2", "....", "o", "-"),
    "tree_auto": Mark("tree of automatic size", "#009e73", "\\\\\\\\", "D", "-"),
    "transformers": Mark("transformers generate", "#f3d9e6", "xxxx"),
}

SERIES_MARKS = (
    Mark("", "#0072b2", "", "o", "-"),
    Mark("", "#e69f00", "", "s", "--"),
    Mark("", "#009e73", "", "D", "-"),
    Mark("", "#cc79a7", "", "^", "--"),
)
"""Of series that have no mark of their own."""

WIDTH_MARKS = (
    Mark("", "#c9a800", "", "o", "-"),
    Mark("", "#5ec962", "", "s", "--"),
    Mark("", "#21918c", "", "D", "-"),
    Mark("", "#3b528b", "", "^", "-."),
    Mark("", "#440154", "", "v", ":"),
)
"""Of series in an order, from light to dark: widths of a tree."""

PUBLISHED_MARK = Mark("published", "#909090", "", "_", "--")
"""Of numbers that are not results of this run."""

PUBLISHED_FILL = "#ececec"
"""Of bars and bands of the same."""

PART_MARKS = {
    "draft": Mark("draft", "#e69f00", "////"),
    "build": Mark("build batch", "#f0e442", "||||"),
    "forward": Mark("target forward", "#0072b2", ""),
    "verify": Mark("verify", "#56b4e9", "...."),
    "commit": Mark("commit", "#009e73", "xxxx"),
    "other": Mark("other", "#dddddd", ""),
}
