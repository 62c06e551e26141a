"""Reader of ``logs.csv``: one row per run of the original artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from figures.cells import read_cells
from figures.tables import SIZES

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


def read_logs(csv_dir: Path) -> list[Log]:
    """The rows of ``logs.csv``. Raises FigureError."""
    columns = ["file", "family", "size", "mode", "batch_size", "num_requests", "per_token_latency_ms", "remarks"]
    return [
        Log(
            file=line.required("file"),
            family=line.required("family", FAMILIES),
            size=line.required("size", SIZES),
            mode=line.required("mode", MODES),
            batch_size=line.required_count("batch_size"),
            num_requests=line.required_count("num_requests"),
            latency_ms=line.number("per_token_latency_ms"),
            remarks=line.text("remarks") or "",
        )
        for line in read_cells(csv_dir / "logs.csv", columns)
    ]
