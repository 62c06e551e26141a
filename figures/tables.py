"""Reader of CSV tables into typed rows; a blank cell is None."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from figures.errors import FigureError

OK = "ok"
SIZES = ("small", "medium", "large")
PURPOSES = ("measure", "functional")
PEERS = ("transformers",)
"""Third parties beside our modes."""
MODES = ("incremental", "sequence", "tree", "tree_auto", *PEERS)
STEP_PARTS = ("draft", "build", "forward", "verify", "commit", "other")


@dataclass(frozen=True)
class Scenario:
    """What every table says of a planned scenario; the fields from ``num_requests`` on are None without a record."""

    name: str
    experiment: str
    size: str
    purpose: str
    mode: str
    batch_size: int
    status: str
    target: str
    draft: str | None
    offload: str | None
    """Where weights are streamed from; None where they are resident."""
    quantisation: str | None
    num_requests: int | None
    num_repeats: int | None
    device: str | None
    num_threads: int | None
    dtype: str | None
    commit: str | None
    target_description: str | None
    target_num_parameters: int | None

    @property
    def is_functional(self) -> bool:
        """Whether its times are the scheduler's and not to be drawn."""
        return self.purpose == "functional"


@dataclass(frozen=True)
class Measured:
    """A value with the ends of its interval; the unit is the column's."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LatencyRow:
    """One row of ``server.csv`` or ``offloading.csv``."""

    scenario: Scenario
    latency_ms: Measured | None
    """Median over requests of the latency per generated token."""
    speedup: Measured | None
    """Over incremental decoding at the same batch size."""
    draft_tokens_per_step: float | None
    """Tokens of a tree that the target verifies per decoding step."""


@dataclass(frozen=True)
class TimeSplitRow:
    """One row of ``time_split.csv``."""

    scenario: Scenario
    shares: dict[str, float] | None
    """Part of the step -> its share, in the order of STEP_PARTS; they sum to 1."""
    step_time_ms: float | None


@dataclass(frozen=True)
class Published:
    """Speed-ups from the SpecInfer paper for one size of an experiment, as a range or one per batch size."""

    size: str
    model: str
    hardware: str
    low: float
    high: float
    by_batch_size: Mapping[int, float]
    """Empty where only the range is published."""
    baseline: str = ""
    """What they are over; "" where that is several systems."""


class _Cells:
    """The cells of one line, by column, with errors that name both."""

    def __init__(self, cells: dict[str, str], where: str) -> None:
        self._cells = cells
        self._where = where

    def text(self, column: str) -> str | None:
        return self._cells[column] or None

    def required(self, column: str, allowed: Sequence[str] = ()) -> str:
        value = self._cells[column]
        if not value or (allowed and value not in allowed):
            raise FigureError(f"{self._where}: {column} is {value!r}, allowed: {', '.join(allowed) or 'any text'}")
        return value

    def number(self, column: str) -> float | None:
        value = self._cells[column]
        try:
            number = float(value) if value else None
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise FigureError(f"{self._where}: {column} is not a number: {value!r}")
        return number

    def count(self, column: str) -> int | None:
        number = self.number(column)
        return None if number is None else int(number)

    def measured(self, value: str, low: str, high: str) -> Measured | None:
        numbers = [self.number(column) for column in (value, low, high)]
        found = [number for number in numbers if number is not None]
        return Measured(*found) if len(found) == len(numbers) else None

    def scenario(self) -> Scenario:
        batch_size = self.count("batch_size")
        if batch_size is None:
            raise FigureError(f"{self._where}: batch_size is blank")
        return Scenario(
            name=self.required("scenario"),
            experiment=self.required("experiment"),
            size=self.required("size", SIZES),
            purpose=self.required("purpose", PURPOSES),
            mode=self.required("mode", MODES),
            batch_size=batch_size,
            status=self.required("status"),
            target=self.required("target"),
            draft=self.text("draft"),
            offload=self.text("offload"),
            quantisation=self.text("quantisation"),
            num_requests=self.count("num_requests"),
            num_repeats=self.count("num_repeats"),
            device=self.text("device"),
            num_threads=self.count("num_threads"),
            dtype=self.text("dtype"),
            commit=self.text("commit"),
            target_description=self.text("target_description"),
            target_num_parameters=self.count("target_num_parameters"),
        )


_SCENARIO_COLUMNS = ("scenario", *(field.name for field in fields(Scenario) if field.name != "name"))
_LATENCY_COLUMNS = ("median_per_token_latency_ms", "ci_low_ms", "ci_high_ms")
_SPEEDUP_COLUMNS = ("speedup", "speedup_ci_low", "speedup_ci_high")


def read_latency_rows(csv_dir: Path, family: str) -> list[LatencyRow]:
    """The rows of ``<family>.csv``, family ``server`` or ``offloading``."""
    columns = [*_SCENARIO_COLUMNS, *_LATENCY_COLUMNS, *_SPEEDUP_COLUMNS, "draft_tokens_per_step"]
    return [
        LatencyRow(
            scenario=line.scenario(),
            latency_ms=line.measured(*_LATENCY_COLUMNS),
            speedup=line.measured(*_SPEEDUP_COLUMNS),
            draft_tokens_per_step=line.number("draft_tokens_per_step"),
        )
        for line in _read(csv_dir / f"{family}.csv", columns)
    ]


def read_time_split_rows(csv_dir: Path) -> list[TimeSplitRow]:
    """The rows of ``time_split.csv``, server experiments only."""
    columns = {part: f"{part}_share" for part in STEP_PARTS}
    rows = []
    for line in _read(csv_dir / "time_split.csv", [*_SCENARIO_COLUMNS, *columns.values(), "step_time_ms"]):
        scenario = line.scenario()
        if scenario.experiment.startswith("server"):
            shares = {part: line.number(column) for part, column in columns.items()}
            known = {part: share for part, share in shares.items() if share is not None}
            rows.append(
                TimeSplitRow(scenario, known if len(known) == len(shares) else None, line.number("step_time_ms"))
            )
    return rows


def read_published_ranges(paper_dir: Path) -> list[Published]:
    """Figure 7: tree speculation over incremental decoding; none where the file is not there."""
    path = paper_dir / "figure7_speedup_ranges.csv"
    if not path.exists():
        return []
    ranges = []
    for line in _read(path, ["size", "model", "hardware", "low", "high"]):
        low, high = line.number("low"), line.number("high")
        if low is not None and high is not None:
            size = line.required("size", SIZES)
            ranges.append(Published(size, line.required("model"), line.required("hardware"), low, high, {}))
    return ranges


def read_published_offloading(paper_dir: Path) -> list[Published]:
    """Figure 8: speculation over FlexGen, per batch size; none where the file is not there."""
    path = paper_dir / "figure8_offloading_speedup_over_flexgen.csv"
    if not path.exists():
        return []
    found: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for line in _read(path, ["size", "model", "hardware", "baseline", "batch_size", "speedup"]):
        batch_size, speedup = line.count("batch_size"), line.number("speedup")
        if batch_size is not None and speedup is not None:
            size, model = line.required("size", SIZES), line.required("model")
            of = (size, model, line.required("hardware"), line.required("baseline"))
            found.setdefault(of, {})[batch_size] = speedup
    return [
        Published(size, model, hardware, min(of.values()), max(of.values()), of, baseline)
        for (size, model, hardware, baseline), of in found.items()
    ]


def _read(path: Path, columns: Sequence[str]) -> list[_Cells]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise FigureError(f"{path}: columns are missing: {', '.join(missing)}")
            return [_Cells(cells, f"{path}:{reader.line_num}") for cells in reader]
    except FileNotFoundError:
        raise FigureError(f"{path}: no such table; it is written by python -m data_parsing") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FigureError(f"{path}: table cannot be read: {error}") from error
