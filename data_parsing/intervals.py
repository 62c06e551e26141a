"""Medians of repeated requests and their bootstrap intervals.

A record is a grid: R repeats (rows) of P prompts (columns). Requests of one repeat share a batch and the machine's
state, repeats of one prompt share its text; so a draw takes whole repeats and whole prompts, with replacement.
Shape suffixes: R repeats, P prompts, D draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NUM_DRAWS = 2000
CONFIDENCE = 0.95
_SEED = 20240427  # any fixed number: the same record must give the same table
_MAX_CELLS = 2_000_000  # of one block of draws: bounds the memory to some 16 MB

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95% interval; NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


def per_token_grid(requests: pd.DataFrame) -> pd.DataFrame:
    """Latency per generated token in ms: rows are repeats, columns prompts; NaN where nothing was generated.

    Equal requests of one batch are one cell, their median: they share the machine's state and the text.
    """
    per_token_ms = (requests["latency_us"] / requests["num_output_tokens"].where(lambda num: num > 0)) / 1000
    return per_token_ms.groupby([requests["repeat"], requests["prompt_index"]]).median().unstack("prompt_index")


def median_interval(grid: pd.DataFrame) -> Estimate:
    """Median over the prompts that generated something in every repeat."""
    cells_RP = grid.dropna(axis="columns").to_numpy(dtype=np.float64)
    if cells_RP.size == 0:
        return NOTHING
    return _estimate(float(np.median(cells_RP)), _median_draws(cells_RP))


def median_ratio_interval(numerator: pd.DataFrame, denominator: pd.DataFrame) -> Estimate:
    """Ratio of the medians over the repeats and whole prompts that both grids have; both take the same draws."""
    top, bottom = numerator.dropna(axis="columns").align(denominator.dropna(axis="columns"), join="inner")
    if top.size == 0:
        return NOTHING
    top_RP, bottom_RP = top.to_numpy(dtype=np.float64), bottom.to_numpy(dtype=np.float64)
    value = float(np.median(top_RP) / np.median(bottom_RP))
    return _estimate(value, _median_draws(top_RP) / _median_draws(bottom_RP))


def _estimate(value: float, draws_D: Grid) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws_D, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _median_draws(cells_RP: Grid) -> Grid:
    """The median of each draw; the draws depend on the grid's shape only."""
    generator = np.random.default_rng(_SEED)
    num_repeats, num_prompts = cells_RP.shape
    repeats_DR = generator.integers(num_repeats, size=(NUM_DRAWS, num_repeats))
    prompts_DP = generator.integers(num_prompts, size=(NUM_DRAWS, num_prompts))
    draws_D = np.empty(NUM_DRAWS)
    block = max(1, _MAX_CELLS // cells_RP.size)
    for start in range(0, NUM_DRAWS, block):
        chosen = slice(start, start + block)
        drawn = cells_RP[repeats_DR[chosen, :, None], prompts_DP[chosen, None, :]]
        draws_D[chosen] = np.median(drawn.reshape(drawn.shape[0], -1), axis=1)
    return draws_D
