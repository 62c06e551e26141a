"""Averages of many scenarios and what they would have been with other prompts.

Scenarios serve the same prompts, so a draw takes prompts once for all scenarios of a prompt set, and repeats alike:
what is a prompt's own cancels out of ratios, and pooling scenarios does not pretend to more prompts than there are.
Shape suffixes: S scenarios, R repeats, P prompts, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from claims.measures import Value

NUM_DRAWS = 2000
CONFIDENCE = 0.95
_SEED = 20240427  # any fixed number: the same tables must give the same verdicts
_MAX_CELLS = 2_000_000  # of one block of draws: bounds the memory to some 16 MB

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """A scenario's requests: rows are repeats, columns prompts, NaN where there is no value."""

    prompt_set: str
    values_RP: pd.DataFrame
    weights_RP: pd.DataFrame


@dataclass(frozen=True)
class Averages:
    """The scenarios' averages, and their bootstrap draws."""

    values_S: Array
    draws_DS: Array
    num_prompts_S: NDArray[np.int64]
    """Prompts that each average is over: those that all scenarios of its prompt set have."""
    num_prompts: int
    """Different prompts in all prompt sets together."""


def estimate(value: float, draws_D: Array) -> Estimate:
    """The percentile interval of the draws about a value."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws_D, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def samples(requests: pd.DataFrame, prompt_sets: Mapping[str, str], value: Value) -> dict[str, Sample]:
    """A sample per scenario that has requests; equal requests of one batch are one cell, their mean."""
    weights = requests[value.weight] if value.weight else pd.Series(1.0, index=requests.index)
    cells = pd.DataFrame({"weighted": requests[value.column] * weights, "weight": weights})
    sums = cells.groupby([requests[key] for key in ("scenario", "repeat", "prompt_index")]).sum(min_count=1)
    weights_RP = sums["weight"].unstack("prompt_index")
    values_RP = (sums["weighted"] / sums["weight"].where(sums["weight"] > 0)).unstack("prompt_index")
    present = set(requests["scenario"])
    return {
        scenario: Sample(prompt_set, values_RP.loc[scenario], weights_RP.loc[scenario])
        for scenario, prompt_set in prompt_sets.items()
        if scenario in present
    }


def averages(of: Sequence[Sample], value: Value) -> Averages:
    """The average of each sample over the prompts that all of its prompt set have in every repeat."""
    values_S, draws_DS = np.empty(len(of)), np.empty((NUM_DRAWS, len(of)))
    num_prompts_S = np.zeros(len(of), dtype=np.int64)
    num_prompts = 0
    for stream, prompt_set in enumerate(sorted({one.prompt_set for one in of})):
        places = [place for place, one in enumerate(of) if one.prompt_set == prompt_set]
        prompts = _common_prompts([of[place] for place in places])
        num_prompts += len(prompts)
        for place in places:
            num_prompts_S[place] = len(prompts)
            if not prompts:
                values_S[place], draws_DS[:, place] = np.nan, np.nan
                continue
            values_RP = of[place].values_RP[prompts].to_numpy(dtype=np.float64)
            weights_RP = of[place].weights_RP[prompts].to_numpy(dtype=np.float64)
            values_S[place] = _average(values_RP[None], weights_RP[None], value)[0]
            draws_DS[:, place] = _draws(values_RP, weights_RP, value, stream)
    return Averages(values_S, draws_DS, num_prompts_S, num_prompts)


def _common_prompts(samples: Sequence[Sample]) -> list[int]:
    complete = [set(one.values_RP.dropna(axis="columns").columns) for one in samples]
    return sorted(set.intersection(*complete))


def _draws(values_RP: Array, weights_RP: Array, value: Value, stream: int) -> Array:
    """The average of each draw; which prompts and repeats it takes depends on their numbers and the stream only."""
    num_repeats, num_prompts = values_RP.shape
    prompts_DP = np.random.default_rng([_SEED, stream]).integers(num_prompts, size=(NUM_DRAWS, num_prompts))
    repeats_DR = np.random.default_rng([_SEED, stream, num_repeats]).integers(
        num_repeats, size=(NUM_DRAWS, num_repeats)
    )
    draws_D = np.empty(NUM_DRAWS)
    block = max(1, _MAX_CELLS // values_RP.size)
    for start in range(0, NUM_DRAWS, block):
        chosen = slice(start, start + block)
        cells = (repeats_DR[chosen, :, None], prompts_DP[chosen, None, :])
        draws_D[chosen] = _average(values_RP[cells], weights_RP[cells], value)
    return draws_D


def _average(values_DRP: Array, weights_DRP: Array, value: Value) -> Array:
    if value.average == "median":
        return np.asarray(np.median(values_DRP.reshape(len(values_DRP), -1), axis=1))
    return np.asarray((values_DRP * weights_DRP).sum(axis=(1, 2)) / weights_DRP.sum(axis=(1, 2)))
