"""Medians and rates of repeated requests, and their bootstrap intervals.

A record is a grid: R repeats (rows) of P prompts (columns). Requests of one repeat share a batch and the machine's
state, repeats of one prompt share its text; so a draw takes whole repeats and whole prompts, with replacement.
Shape suffixes: R repeats, P prompts, D draws, C several quantities of the same requests.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NUM_DRAWS = 2000
CONFIDENCE = 0.95
_SEED = 20240427  # any fixed number: the same record must give the same table
_MAX_CELLS = 2_000_000  # of one block of draws: bounds the memory to some 16 MB

Grid = NDArray[np.float64]
Chosen = NDArray[np.int64]


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
    cells: dict[tuple[int, int], list[float]] = {}
    columns = ("repeat", "prompt_index", "latency_us", "num_output_tokens")
    for repeat, prompt, latency_us, num_tokens in zip(*(requests[key].tolist() for key in columns), strict=True):
        own = cells.setdefault((repeat, prompt), [])
        if num_tokens > 0:
            own.append(latency_us / num_tokens / 1000)
    repeats, prompts = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    grid_RP = [[_median(cells.get((repeat, prompt))) for prompt in prompts] for repeat in repeats]
    return pd.DataFrame(grid_RP, index=repeats, columns=prompts, dtype=np.float64)


def _median(values: list[float] | None) -> float:
    return statistics.median(values) if values else float("nan")


def sums_grid(requests: pd.DataFrame, values_NC: Grid) -> Grid:
    """``[R, P, C]``: sums over the equal requests of a batch; 0 where a repeat lacks a prompt.

    ``values_NC`` has a row for each of the N requests.
    """
    repeats, of_repeat = np.unique(requests["repeat"].to_numpy(), return_inverse=True)
    prompts, of_prompt = np.unique(requests["prompt_index"].to_numpy(), return_inverse=True)
    sums_RPC = np.zeros((len(repeats), len(prompts), values_NC.shape[1]))
    np.add.at(sums_RPC, (of_repeat, of_prompt), values_NC)
    return sums_RPC


def median_interval(grid: pd.DataFrame) -> Estimate:
    """Median over the prompts that generated something in every repeat."""
    cells_RP = grid.dropna(axis="columns").to_numpy(dtype=np.float64)
    if cells_RP.size == 0:
        return NOTHING
    (estimate,) = _estimates(np.array([np.median(cells_RP)]), _median_draws(cells_RP)[:, None])
    return estimate


def median_ratio_interval(numerator: pd.DataFrame, denominator: pd.DataFrame) -> Estimate:
    """Ratio of the medians over the repeats and whole prompts that both grids have; both take the same draws."""
    top, bottom = numerator.dropna(axis="columns").align(denominator.dropna(axis="columns"), join="inner")
    if top.size == 0:
        return NOTHING
    top_RP, bottom_RP = top.to_numpy(dtype=np.float64), bottom.to_numpy(dtype=np.float64)
    value = np.median(top_RP) / np.median(bottom_RP)
    draws_D = _median_draws(top_RP) / _median_draws(bottom_RP)
    (estimate,) = _estimates(np.array([value]), draws_D[:, None])
    return estimate


def rate_intervals(part_RPC: Grid, whole_RPC: Grid) -> list[Estimate]:
    """For each of C: the sum of the parts over the sum of the wholes; NOTHING where the whole is 0.

    A draw in which nothing of the whole occurs says nothing of the rate and is left out.
    """
    num_repeats, num_prompts, num_quantities = part_RPC.shape
    repeats_DR, prompts_DP = _draws(num_repeats, num_prompts)
    times_DR, times_DP = _times(repeats_DR, num_repeats), _times(prompts_DP, num_prompts)
    both_PRC = np.concatenate([part_RPC, whole_RPC], axis=2).swapaxes(0, 1)
    by_repeat_DRC = (times_DP @ both_PRC.reshape(num_prompts, -1)).reshape(NUM_DRAWS, num_repeats, -1)
    both_DC = (times_DR[:, :, None] * by_repeat_DRC).sum(axis=1)
    part_DC, whole_DC = both_DC[:, :num_quantities], both_DC[:, num_quantities:]
    part_C, whole_C = part_RPC.sum(axis=(0, 1)), whole_RPC.sum(axis=(0, 1))
    value_C = np.divide(part_C, whole_C, out=np.full_like(whole_C, np.nan), where=whole_C > 0)
    draws_DC = np.divide(part_DC, whole_DC, out=np.full_like(whole_DC, np.nan), where=whole_DC > 0)
    return _estimates(value_C, draws_DC)


def _estimates(value_C: Grid, draws_DC: Grid) -> list[Estimate]:
    """The values with the quantiles of those draws that are not NaN."""
    tail = (1 - CONFIDENCE) / 2
    ordered_DC = np.sort(draws_DC, axis=0)  # NaN last
    last_C = np.maximum(np.count_nonzero(~np.isnan(draws_DC), axis=0) - 1, 0)
    ends = []
    for share in (tail, 1 - tail):
        place_C = share * last_C
        below_C = place_C.astype(np.int64)
        above_C = np.minimum(below_C + 1, last_C)
        lower_C, upper_C = (np.take_along_axis(ordered_DC, at[None], axis=0)[0] for at in (below_C, above_C))
        ends.append(lower_C + (place_C - below_C) * (upper_C - lower_C))
    return [Estimate(*map(float, cells)) for cells in zip(value_C, *ends, strict=True)]


def _draws(num_repeats: int, num_prompts: int) -> tuple[Chosen, Chosen]:
    """``[D, R]`` repeats and ``[D, P]`` prompts of each draw; they depend on the grid's shape only."""
    generator = np.random.default_rng(_SEED)
    repeats_DR = generator.integers(num_repeats, size=(NUM_DRAWS, num_repeats))
    prompts_DP = generator.integers(num_prompts, size=(NUM_DRAWS, num_prompts))
    return repeats_DR, prompts_DP


def _times(chosen: Chosen, num: int) -> Grid:
    """``[D, num]``: how often each draw took each of ``num``."""
    flat = (np.arange(len(chosen))[:, None] * num + chosen).ravel()
    return np.bincount(flat, minlength=len(chosen) * num).reshape(len(chosen), num).astype(np.float64)


def _median_draws(cells_RP: Grid) -> Grid:
    """The median of each draw."""
    repeats_DR, prompts_DP = _draws(*cells_RP.shape)
    draws_D = np.empty(NUM_DRAWS)
    block = max(1, _MAX_CELLS // cells_RP.size)
    for start in range(0, NUM_DRAWS, block):
        chosen = slice(start, start + block)
        drawn = cells_RP[repeats_DR[chosen, :, None], prompts_DP[chosen, None, :]]
        draws_D[chosen] = np.median(drawn.reshape(drawn.shape[0], -1), axis=1)
    return draws_D
