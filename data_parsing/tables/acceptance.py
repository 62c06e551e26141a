"""Tables ``acceptance`` and ``success_rates``: how often a draft's proposals are the target's tokens, by rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from data_parsing.intervals import rate_intervals
from data_parsing.records.reading import Measurement, Record
from data_parsing.records.record_set import RecordSet
from data_parsing.tables.frames import COUNT, NUMBER, frame
from data_parsing.tables.scenario_columns import IDENTITY, PROVENANCE, scenario_cells

ACCEPTANCE_SCHEMA = (
    IDENTITY
    | {"depth": COUNT, "rank": COUNT, "num_offered": COUNT, "num_accepted": COUNT}
    | {"rate": NUMBER, "ci_low": NUMBER, "ci_high": NUMBER}
    | PROVENANCE
)
SUCCESS_SCHEMA = (
    IDENTITY
    | {"k": COUNT, "num_tried": COUNT, "success_rate": NUMBER, "ci_low": NUMBER, "ci_high": NUMBER}
    | PROVENANCE
)
RANK_SUCCESS = "rank_success"
"""The long table of the experiment behind SpecInfer's table 1: trees that are as wide at every depth."""


def acceptance_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``acceptance``: one row per scenario that drafts, depth and rank; one blank row where nothing was offered."""
    rows = [row for record in records.records if record.planned.drafts for row in _rows(record, _acceptance_cells)]
    return {"acceptance": frame(rows, ACCEPTANCE_SCHEMA)}


def success_rates_table(records: RecordSet) -> dict[str, pd.DataFrame]:
    """``success_rates``: one row per scenario of RANK_SUCCESS and k; one blank row where no record counts."""
    own = [record for record in records.records if record.planned.table == RANK_SUCCESS and record.planned.drafts]
    return {"success_rates": frame([row for record in own for row in _rows(record, _success_cells)], SUCCESS_SCHEMA)}


def _rows(record: Record, cells_of: Callable[[Measurement], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    identity = scenario_cells(record)
    measured = [] if record.measurement is None else list(cells_of(record.measurement))
    yield from (identity | cells for cells in measured or [{}])


def _acceptance_cells(measurement: Measurement) -> Iterator[dict[str, Any]]:
    counts = measurement.rank_counts
    depths, ranks = np.nonzero(counts.offered)
    if not len(depths):
        return
    offered_RPC, accepted_RPC = (
        counts.sums(counts_NDK[:, depths, ranks]) for counts_NDK in (counts.offered_NDK, counts.accepted_NDK)
    )
    rates = rate_intervals(accepted_RPC, offered_RPC)
    for depth, rank, rate in zip(depths.tolist(), ranks.tolist(), rates, strict=True):
        yield {
            "depth": depth + 1,
            "rank": rank + 1,
            "num_offered": int(counts.offered[depth, rank]),
            "num_accepted": int(counts.accepted[depth, rank]),
            "rate": rate.value,
            "ci_low": rate.low,
            "ci_high": rate.high,
        }


def _success_cells(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """Over reached nodes with proposals of every rank.

    A request's counts at a depth do not tell which of its nodes were narrower, so there they count only if none was.
    """
    counts = measurement.rank_counts
    if not counts.offered.size:
        return
    is_full_ND = counts.offered_NDK[:, :, 0] == counts.offered_NDK[:, :, -1]
    tried_NK = np.where(is_full_ND[:, :, None], counts.offered_NDK, 0.0).sum(axis=1)
    among_first_NK = np.where(is_full_ND[:, :, None], counts.accepted_NDK, 0.0).sum(axis=1).cumsum(axis=1)
    num_tried = int(tried_NK[:, 0].sum())
    for k, rate in enumerate(rate_intervals(counts.sums(among_first_NK), counts.sums(tried_NK)), start=1):
        if num_tried:
            yield {
                "k": k,
                "num_tried": num_tried,
                "success_rate": rate.value,
                "ci_low": rate.low,
                "ci_high": rate.high,
            }
