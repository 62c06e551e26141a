"""What a speculation step costs: t(n), the measured time of a target pass over n rows, and the drafts'. Torch-free.

Legend: n rows of a pass, all requests together; B requests, N nodes per request, D levels of a draft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class TimeCurve:
    """Milliseconds of a forward pass by its number of rows, measured at a few and never decreasing.

    Between two measured points linear, beyond the last on the line through the last two; a curve of a single point is
    constant.
    """

    rows: tuple[int, ...]
    ms: tuple[float, ...]

    def __post_init__(self) -> None:
        assert len(self.rows) == len(self.ms) and self.rows[0] == 1, "a pass over one row is where a curve begins"
        assert all(a < b for a, b in zip(self.rows, self.rows[1:], strict=False)), "rows ascend"
        assert self.ms[0] > 0 and all(a <= b for a, b in zip(self.ms, self.ms[1:], strict=False)), "times never fall"

    @classmethod
    def measured(cls, ms_by_rows: Mapping[int, float]) -> TimeCurve:
        """From medians; a time below one of fewer rows is noise, so the larger of the two is taken."""
        rows = sorted(ms_by_rows)
        return cls(tuple(rows), tuple(np.maximum.accumulate([ms_by_rows[n] for n in rows]).tolist()))

    def at(self, rows: ArrayLike) -> np.ndarray:
        """Milliseconds for each number of rows; no rows, no time."""
        n = np.asarray(rows, dtype=float)
        ms = np.interp(n, self.rows, self.ms)
        if len(self.rows) > 1:
            slope = (self.ms[-1] - self.ms[-2]) / (self.rows[-1] - self.rows[-2])
            ms = ms + slope * np.maximum(n - self.rows[-1], 0)
        return np.where(n > 0, ms, 0.0)


@dataclass(frozen=True)
class CostModel:
    """Time of a decoding step: every level of the draft, one target pass over all trees, and what neither shows."""

    target: TimeCurve  # t(n)
    draft_level: TimeCurve  # one draft pass and the choice of children, by the rows it runs
    overhead_ms: float = 0.0  # per step, whatever it drafts

    def step_ms(self, batch_size: int, num_nodes: ArrayLike, level_rows: ArrayLike) -> np.ndarray:
        """Milliseconds of a step in which each of B requests has a tree of N nodes, root included.

        ``level_rows[..., D]`` holds the nodes that a request's draft runs at every level. Both may carry the same
        leading dimensions, which the result has.
        """
        target = self.target.at(batch_size * np.asarray(num_nodes))
        drafts = self.draft_level.at(batch_size * np.asarray(level_rows)).sum(axis=-1)
        return np.asarray(target + drafts + self.overhead_ms)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a record."""
        curves = {"target": self.target, "draft_level": self.draft_level}
        return {name: {"rows": list(c.rows), "ms": list(c.ms)} for name, c in curves.items()} | {
            "overhead_ms": self.overhead_ms
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostModel:
        """What ``to_dict`` made."""
        target, draft_level = (
            TimeCurve(tuple(data[name]["rows"]), tuple(data[name]["ms"])) for name in ("target", "draft_level")
        )
        return cls(target, draft_level, float(data["overhead_ms"]))
