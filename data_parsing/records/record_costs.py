"""What passes cost, as a record tells: times of the target and of the draft's levels by their number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_parsing.records.record_fields import DamagedRecordError, counts_of, duration_of, durations_of, object_of


@dataclass(frozen=True)
class CostCurve:
    """Milliseconds of a pass by its rows: from one row on, more rows never cheaper."""

    rows: tuple[int, ...]
    ms: tuple[float, ...]

    def at(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds for each number of rows: between two points linear, beyond the last on the last line."""
        wanted = np.asarray(rows, dtype=np.float64)
        ms = np.interp(wanted, self.rows, self.ms)
        if len(self.rows) > 1:
            slope = (self.ms[-1] - self.ms[-2]) / (self.rows[-1] - self.rows[-2])
            ms = ms + slope * np.maximum(wanted - self.rows[-1], 0)
        return np.asarray(ms)


@dataclass(frozen=True)
class StepCosts:
    """What a step with one draft model consists of."""

    target: CostCurve
    draft_level: CostCurve
    """One pass of the draft and the choice of children."""
    overhead_ms: float

    def step_ms(self, target_rows: int, level_rows: ArrayLike) -> float:
        """A step whose target pass has so many rows, after passes of the draft that have so many each."""
        return float(self.target.at(target_rows) + self.draft_level.at(level_rows).sum() + self.overhead_ms)


def read_costs(meta: dict[str, Any]) -> dict[str, StepCosts]:
    """By number of the draft model, from ``costs`` of a ``.meta.json``; empty where nothing was measured."""
    if not meta.get("costs"):
        return {}
    costs = object_of(meta, "costs")
    try:
        return {model: _step_costs(object_of(costs, model)) for model in sorted(costs)}
    except DamagedRecordError as damage:
        raise DamagedRecordError(f"costs: {damage}") from damage


def _step_costs(data: dict[str, Any]) -> StepCosts:
    return StepCosts(_curve(data, "target"), _curve(data, "draft_level"), duration_of(data, "overhead_ms"))


def _curve(costs: dict[str, Any], name: str) -> CostCurve:
    data = object_of(costs, name)
    rows, ms = counts_of(data, "rows"), durations_of(data, "ms")
    # A ratio to the time of one row needs that row, and a time above nothing.
    if len(rows) != len(ms) or rows[:1] != (1,) or min(ms) <= 0 or list(rows) != sorted(set(rows)):
        raise DamagedRecordError(f"{name} is no curve from one row on")
    if list(ms) != sorted(ms):
        raise DamagedRecordError(f"{name} falls with its rows")
    return CostCurve(rows, ms)
