"""Reader of ``logs.csv``: one row per run of the original artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from figures.reading.cells import Cells, read_cells
from figures.reading.tables import SIZES

FAMILIES = ("server", "offloading")
MODES = ("incremental", "sequence", "tree")


@dataclass(frozen=True)
class Log:
    """What a run left; ``latency_ms`` is per token by the artifact's formula, None where no whole entry is there."""

    file: str
    family: str
    size: str
    mode: str
    batch_size: int
    num_requests: int
    latency_ms: float | None
    remarks: str


@dataclass(frozen=True)
class Logs:
    """The runs of a folder, and the files in it whose names tell no experiment."""

    runs: tuple[Log, ...]
    unknown: tuple[str, ...]


def read_logs(csv_dir: Path) -> Logs:
    """The rows of ``logs.csv``. Raises FigureError."""
    columns = ["file", "family", "size", "mode", "batch_size", "num_requests", "per_token_latency_ms", "remarks"]
    lines = list(read_cells(csv_dir / "logs.csv", columns))
    runs = tuple(_run(line) for line in lines if line.text("family"))
    return Logs(runs, tuple(line.required("file") for line in lines if not line.text("family")))


def _run(line: Cells) -> Log:
    return Log(
        file=line.required("file"),
        family=line.required("family", FAMILIES),
        size=line.required("size", SIZES),
        mode=line.required("mode", MODES),
        batch_size=line.required_count("batch_size"),
        num_requests=line.required_count("num_requests"),
        latency_ms=line.number("per_token_latency_ms"),
        remarks=line.text("remarks") or "",
    )
