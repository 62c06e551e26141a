"""The registry of figures: name -> how it is drawn from a folder of tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from figures.panels import own_settings
from figures.server_latency import draw_server_latency
from figures.server_speedup import draw_server_speedup
from figures.tables import read_published_ranges, read_server_rows, read_time_split_rows
from figures.time_split import draw_time_split


@dataclass(frozen=True)
class Sources:
    """Where figures read from."""

    csv_dir: Path
    paper_dir: Path
    """Published numbers; what is not there is not drawn."""


def _server_latency(sources: Sources) -> Figure:
    return draw_server_latency(own_settings(read_server_rows(sources.csv_dir)))


def _server_speedup(sources: Sources) -> Figure:
    rows = own_settings(read_server_rows(sources.csv_dir))
    return draw_server_speedup(rows, read_published_ranges(sources.paper_dir))


def _time_split(sources: Sources) -> Figure:
    return draw_time_split(own_settings(read_time_split_rows(sources.csv_dir)))


FIGURES: dict[str, Callable[[Sources], Figure]] = {
    "server_latency": _server_latency,
    "server_speedup": _server_speedup,
    "time_split": _time_split,
}
