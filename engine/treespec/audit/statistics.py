"""Whether counted tokens agree with the probabilities that were promised for them.

Legend: V vocabulary, C cells of a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_EXPECTED = 5.0  # a cell with fewer expected draws is pooled (Cochran 1954)
MIN_DRAWS = 2 * MIN_EXPECTED  # fewer cannot fill two cells
FALSE_ALARMS = 1e-3  # probability that a family of tests refuses what is right


@dataclass(frozen=True)
class Counts:
    """Tokens drawn in one context, beside the number expected of each."""

    observed_V: Tensor  # float64
    expected_V: Tensor  # float64, sums to the number of draws


@dataclass(frozen=True)
class Fit:
    """The outcome of a chi-square test over several contexts."""

    num_draws: int
    degrees_of_freedom: int
    chi_square: float
    num_impossible: int  # drawn tokens that were promised not to come
    p_value: float  # probability of so large a chi-square if the promise holds; 0 if the impossible came
    total_variation: float  # mean over the draws of the distance within their context, over the cells tested
    noise_floor: float  # the same distance, expected if the promise holds

    def holds(self, num_tests: int) -> bool:
        """Whether the promise stands when ``num_tests`` such tests may raise one false alarm together (Bonferroni)."""
        return self.p_value >= FALSE_ALARMS / num_tests


def chi_square_fit(contexts: Iterable[Counts]) -> Fit:
    """Pearson's test, context by context, added up.

    Given how often each context came, its counts are a draw of their own. The sum thus judges the joint
    distribution of successive tokens, not only of each: a token that depends on the noise of the one before fails
    in the contexts which that noise led to.
    """
    num_draws = degrees = num_impossible = 0
    chi_square = distance = noise = 0.0
    for counts in contexts:
        num_impossible += round(float(counts.observed_V[counts.expected_V == 0].sum()))
        observed_C, expected_C = _pooled(counts)
        n = float(observed_C.sum())
        if len(expected_C) < 2:
            continue
        num_draws += round(n)
        degrees += len(expected_C) - 1
        chi_square += float(((observed_C - expected_C) ** 2 / expected_C).sum())
        distance += float((observed_C - expected_C).abs().sum()) / 2
        noise += float((2 / math.pi * expected_C * (1 - expected_C / n)).sqrt().sum()) / 2
    return Fit(
        num_draws=num_draws,
        degrees_of_freedom=degrees,
        chi_square=chi_square,
        num_impossible=num_impossible,
        p_value=0.0 if num_impossible else _survival(chi_square, degrees),
        total_variation=distance / max(num_draws, 1),
        noise_floor=noise / max(num_draws, 1),
    )


def _pooled(counts: Counts) -> tuple[Tensor, Tensor]:
    """Observed and expected ``[C]``: rare tokens are one cell, or part of the rarest cell if too few for their own."""
    large_V = counts.expected_V >= MIN_EXPECTED
    observed_C, expected_C = counts.observed_V[large_V], counts.expected_V[large_V]
    rest_observed = counts.observed_V[~large_V].sum()
    rest_expected = counts.expected_V[~large_V].sum()
    if float(rest_expected) >= MIN_EXPECTED or not len(expected_C):
        return torch.cat([observed_C, rest_observed[None]]), torch.cat([expected_C, rest_expected[None]])
    rarest = int(expected_C.argmin())
    observed_C[rarest] += rest_observed
    expected_C[rarest] += rest_expected
    return observed_C, expected_C


def _survival(chi_square: float, degrees: int) -> float:
    if degrees == 0:
        return 1.0
    halves = torch.tensor([degrees / 2, chi_square / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))
