"""Tables behind a researcher's figures, read into typed rows; a measure is None where no record counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from figures.errors import FigureError
from figures.reading.cells import Cells, Measured, read_cells
from figures.reading.tables import SCENARIO_COLUMNS, SIZES, Scenario, read_scenario

COST_PARTS = ("target", "draft_level")


@dataclass(frozen=True)
class AcceptanceRow:
    """One row of ``acceptance.csv``: the proposals of one rank at one depth."""

    scenario: Scenario
    depth: int | None
    """From 1; None without a record, as all that follows."""
    rank: int | None
    """From 1, the draft's first choice."""
    num_offered: int | None
    """Steps that reached a node of the depth before with a proposal of this rank."""
    num_accepted: int | None
    rate: Measured | None


@dataclass(frozen=True)
class AcceptedLengthRow:
    """One row of ``accepted_lengths.csv``: how many steps accepted so many tokens."""

    scenario: Scenario
    num_accepted: int | None
    share: float | None
    cumulative_share: float | None


@dataclass(frozen=True)
class PredictionRow:
    """One row of ``predictions.csv``; tokens per step count the token that every step emits by itself."""

    scenario: Scenario
    measured_tokens_per_step: float | None
    tokens_per_step: Measured | None
    """The same with its interval."""
    predicted_tokens_per_step: float | None
    num_nodes: float | None
    """Of a request's tree, its root left out; a mean where it varies."""
    measured_speedup: Measured | None
    predicted_speedup: float | None


@dataclass(frozen=True)
class Weights:
    """Models of a size, and how the target's weights are kept."""

    size: str
    target: str
    offload: str | None
    quantisation: str | None

    @classmethod
    def of(cls, scenario: Scenario) -> Weights:
        """Those that a scenario runs on."""
        return cls(scenario.size, scenario.target, scenario.offload, scenario.quantisation)

    @property
    def order(self) -> tuple[int, bool, bool]:
        """Of several: small first, then resident, then as they are stored."""
        return SIZES.index(self.size), self.offload is not None, self.quantisation is not None

    @property
    def label(self) -> str:
        """In words: "small: llama, offload disk, int8"."""
        place = f"offload {self.offload}" if self.offload else ""
        return f"{self.size}: " + ", ".join(filter(None, [self.target, place, self.quantisation]))


@dataclass(frozen=True)
class CostCurve:
    """The lines of ``verify_costs.csv`` of one placement and part: time of a pass by its rows, ascending from one."""

    placement: str
    weights: Weights
    device: str | None
    num_threads: int | None
    target_description: str | None
    part: str
    rows: tuple[int, ...]
    time_ms: tuple[float, ...]
    ratio: tuple[float, ...]
    """Over the time of one row."""


def read_acceptance(csv_dir: Path) -> list[AcceptanceRow]:
    """The rows of ``acceptance.csv``."""
    counts, rate = ["depth", "rank", "num_offered", "num_accepted"], ["rate", "ci_low", "ci_high"]
    return [
        AcceptanceRow(
            scenario=read_scenario(line),
            depth=line.count("depth"),
            rank=line.count("rank"),
            num_offered=line.count("num_offered"),
            num_accepted=line.count("num_accepted"),
            rate=line.measured(*rate),
        )
        for line in read_cells(csv_dir / "acceptance.csv", [*SCENARIO_COLUMNS, *counts, *rate])
    ]


def read_accepted_lengths(csv_dir: Path) -> list[AcceptedLengthRow]:
    """The rows of ``accepted_lengths.csv``."""
    columns = ["num_accepted", "num_steps", "share", "cumulative_share"]
    return [
        AcceptedLengthRow(
            read_scenario(line), line.count("num_accepted"), line.number("share"), line.number("cumulative_share")
        )
        for line in read_cells(csv_dir / "accepted_lengths.csv", [*SCENARIO_COLUMNS, *columns])
    ]


def read_predictions(csv_dir: Path) -> list[PredictionRow]:
    """The rows of ``predictions.csv``."""
    speedup = ["measured_speedup", "measured_ci_low", "measured_ci_high"]
    tokens = [f"measured_tokens_per_step{end}" for end in ("", "_ci_low", "_ci_high")]
    columns = [*tokens, "predicted_tokens_per_step", "num_nodes", *speedup, "predicted_speedup"]
    return [
        PredictionRow(
            scenario=read_scenario(line),
            measured_tokens_per_step=line.number(tokens[0]),
            tokens_per_step=line.measured(*tokens),
            predicted_tokens_per_step=line.number("predicted_tokens_per_step"),
            num_nodes=line.number("num_nodes"),
            measured_speedup=line.measured(*speedup),
            predicted_speedup=line.number("predicted_speedup"),
        )
        for line in read_cells(csv_dir / "predictions.csv", [*SCENARIO_COLUMNS, *columns])
    ]


def read_cost_curves(csv_dir: Path) -> list[CostCurve]:
    """The curves of ``verify_costs.csv``, in the table's order."""
    path = csv_dir / "verify_costs.csv"
    identity = ["placement", "target", "size", "offload", "quantisation", "device", "num_threads"]
    identity += ["target_description", "part"]
    lines_by_curve: dict[tuple[str, str], list[Cells]] = {}
    for line in read_cells(path, [*identity, "rows", "time_ms", "ratio"]):
        curve = line.required("placement"), line.required("part", COST_PARTS)
        lines_by_curve.setdefault(curve, []).append(line)
    return [_cost_curve(path, *curve, lines) for curve, lines in lines_by_curve.items()]


def _cost_curve(path: Path, placement: str, part: str, lines: list[Cells]) -> CostCurve:
    points = sorted(
        (line.required_count("rows"), line.required_number("time_ms"), line.required_number("ratio")) for line in lines
    )
    rows, time_ms, ratio = zip(*points, strict=True)
    if rows[0] != 1 or len(set(rows)) != len(rows) or min(time_ms) <= 0 or min(ratio) <= 0:
        raise FigureError(f"{path}: {part} of {placement}: rows must be 1 and more, each once, with times above 0")
    first = lines[0]
    return CostCurve(
        placement=placement,
        weights=Weights(
            first.required("size", SIZES),
            first.required("target"),
            first.text("offload"),
            first.text("quantisation"),
        ),
        device=first.text("device"),
        num_threads=first.count("num_threads"),
        target_description=first.text("target_description"),
        part=part,
        rows=rows,
        time_ms=time_ms,
        ratio=ratio,
    )
