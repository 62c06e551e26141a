"""Counts of steps by depth and rank of their proposals, of all requests of a record.

Shape suffixes: N requests, R repeats, P prompts, D depths, K ranks; index 0 is depth 1 and rank 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from data_parsing.intervals import Grid, sums_grid
from data_parsing.records.request_rows import Ranks


@dataclass(frozen=True)
class RankCounts:
    """Steps that reached a node of the depth before and had such a proposal below it, and that accepted it."""

    offered_NDK: Grid
    accepted_NDK: Grid
    requests: pd.DataFrame

    @classmethod
    def of(cls, requests: pd.DataFrame) -> RankCounts:
        """From rows with ``request_rows.COLUMNS``; without depths where nothing was speculated."""
        offered, accepted = (requests[key].tolist() for key in ("offered", "accepted"))
        return cls(_padded(offered), _padded(accepted), requests)

    @cached_property
    def offered(self) -> Grid:
        """``[D, K]`` over all requests."""
        return np.asarray(self.offered_NDK.sum(axis=0))

    @cached_property
    def accepted(self) -> Grid:
        """``[D, K]`` over all requests."""
        return np.asarray(self.accepted_NDK.sum(axis=0))

    @property
    def rates(self) -> Grid:
        """``[K]``: acceptance by rank, all depths together; NaN for a rank that was never offered."""
        offered_K, accepted_K = self.offered.sum(axis=0), self.accepted.sum(axis=0)
        return np.asarray(np.divide(accepted_K, offered_K, out=np.full_like(offered_K, np.nan), where=offered_K > 0))

    def sums(self, values_NC: Grid) -> Grid:
        """``[R, P, C]`` of values per request."""
        return sums_grid(self.requests, values_NC)


def _padded(tables: Sequence[Ranks]) -> Grid:
    """``[N, D, K]``, 0 where a request has no such depth or rank."""
    num_depths = max(map(len, tables), default=0)
    num_ranks = max((len(row) for table in tables for row in table), default=0)
    padded_NDK = np.zeros((len(tables), num_depths, num_ranks))
    for request, table in enumerate(tables):
        for depth, row in enumerate(table):
            padded_NDK[request, depth, : len(row)] = row
    return padded_NDK
