"""The figures of a results folder, those that are expected first, each as bytes with its caption or as missing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from report.errors import ReportError
from report.png import description, is_png


@dataclass(frozen=True)
class Entry:
    """A figure that is expected: its file's name, what it shows, and what of the paper it stands for."""

    name: str
    title: str
    of_paper: str = ""


PAPER = (
    Entry("server_latency", "Latency per token by mode and batch size", "figure 7"),
    Entry("server_speedup", "Speed-up over incremental decoding against the batch size", "figure 7"),
    Entry("offloading_latency", "Latency per token with offloading", "figure 8"),
    Entry("offloading_speedup", "Speed-up with offloading", "figure 8"),
    Entry("rank_success", "How often the target's token is among the draft's first k", "table 1"),
    Entry("tokens_per_step", "Tokens per decoding step by tree width", "table 2"),
    Entry("tokens_per_step_cdf", "Distribution of tokens per decoding step over prompts", "figure 9"),
    Entry("width_latency", "Latency by tree width and batch size", "figure 10"),
    Entry("parallel_decoding", "Tree-based against sequence-based parallel decoding of the same tree", "figure 11"),
    Entry("sampling_algorithms", "Naive against multi-step speculative sampling", "table 3"),
)
BEYOND = (
    Entry("time_split", "Where a step's time goes"),
    Entry("tree_sizes", "Tokens verified per step where trees choose their size"),
    Entry("acceptance_by_depth", "Acceptance by depth in the tree"),
    Entry("accepted_lengths", "Accepted tokens per step"),
    Entry("tree_size_acceptance", "Acceptance against tree size, over the predicted curve"),
    Entry("verify_cost", "What verifying n tokens costs"),
    Entry("predicted_speedup", "Predicted against measured speed-up"),
    Entry("break_even", "Where speculation pays: batch size and acceptance"),
)
SECTIONS = (("Figures and tables of the paper", PAPER), ("Beyond the paper", BEYOND))


@dataclass(frozen=True)
class Picture:
    """One figure of the page; ``source`` is its data address, "" where the file is not there or cut."""

    entry: Entry
    caption: str = ""
    source: str = ""

    @property
    def alternative(self) -> str:
        """What stands for the picture where it is not seen."""
        of_paper = f" (the paper's {self.entry.of_paper})" if self.entry.of_paper else ""
        return f"{self.entry.title}{of_paper}{'; described below' if self.caption else ''}"


def read_pictures(figures_dir: Path) -> Iterator[tuple[str, list[Picture]]]:
    """Section by section; a last section holds what lies in the folder and is not expected. Raises ReportError."""
    expected = {entry.name for _, entries in SECTIONS for entry in entries}
    others = [path.stem for path in sorted(figures_dir.glob("*.png")) if path.stem not in expected]
    for heading, entries in SECTIONS:
        yield heading, [_picture(figures_dir, entry) for entry in entries]
    if others:
        yield "Others", [_picture(figures_dir, Entry(name, name.replace("_", " "))) for name in others]


def _picture(figures_dir: Path, entry: Entry) -> Picture:
    path = figures_dir / f"{entry.name}.png"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Picture(entry)
    except OSError as error:
        raise ReportError(f"{path}: figure cannot be read: {error.strerror or error}") from error
    if not is_png(data):
        return Picture(entry, "The file is no whole PNG.")
    return Picture(entry, description(data), f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}")
