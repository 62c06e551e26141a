"""The registry of figures: name -> how it is drawn from a folder of tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from figures.latency import draw_latency
from figures.panels import own_settings
from figures.speedup import draw_speedup
from figures.tables import (
    LatencyRow,
    read_latency_rows,
    read_published_offloading,
    read_published_ranges,
    read_time_split_rows,
)
from figures.time_split import draw_time_split
from figures.tree_sizes import draw_tree_sizes


@dataclass(frozen=True)
class Sources:
    """Where figures read from."""

    csv_dir: Path
    paper_dir: Path
    """Published numbers; what is not there is not drawn."""


_PUBLISHED_SERVER = (
    "Grey: the range that the SpecInfer paper gives for tree-based speculation over batch sizes 1 to 16, on other "
    "hardware and models and against other systems: not a result of this run."
)
_PUBLISHED_OFFLOADING = (
    "Grey: what the SpecInfer paper gives (figure 8), on other hardware and models and over FlexGen, which is another "
    "baseline than the incremental decoding that everything else here is over: not a result of this run."
)
_OFFLOADING = (
    "The target's weights do not fit the device memory that they may take: what is left out is streamed to it in every "
    "pass, but in panels called resident. Rounded weights may fit, and then nothing is streamed: streamed_bytes in "
    "offloading.csv."
)


def _rows(sources: Sources, family: str) -> list[LatencyRow]:
    return own_settings(read_latency_rows(sources.csv_dir, family))


def _server_latency(sources: Sources) -> Figure:
    return draw_latency(_rows(sources, "server"))


def _server_speedup(sources: Sources) -> Figure:
    return draw_speedup(_rows(sources, "server"), read_published_ranges(sources.paper_dir), _PUBLISHED_SERVER)


def _offloading_latency(sources: Sources) -> Figure:
    return draw_latency(_rows(sources, "offloading"), _OFFLOADING)


def _offloading_speedup(sources: Sources) -> Figure:
    published = read_published_offloading(sources.paper_dir)
    return draw_speedup(_rows(sources, "offloading"), published, _PUBLISHED_OFFLOADING)


def _tree_sizes(sources: Sources) -> Figure:
    return draw_tree_sizes(_rows(sources, "offloading"))


def _time_split(sources: Sources) -> Figure:
    return draw_time_split(own_settings(read_time_split_rows(sources.csv_dir)))


FIGURES: dict[str, Callable[[Sources], Figure]] = {
    "server_latency": _server_latency,
    "server_speedup": _server_speedup,
    "offloading_latency": _offloading_latency,
    "offloading_speedup": _offloading_speedup,
    "tree_sizes": _tree_sizes,
    "time_split": _time_split,
}
