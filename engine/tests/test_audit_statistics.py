"""The chi-square test of the audit: its level, its noise floor and its pooling are what they say.

Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from treespec.audit.statistics import FALSE_ALARMS, Counts, Fit, chi_square_fit


def counts(observed: Sequence[float], probabilities: Sequence[float]) -> Counts:
    observed_V = torch.tensor(observed, dtype=torch.float64)
    return Counts(observed_V, torch.tensor(probabilities, dtype=torch.float64) * observed_V.sum())


@pytest.mark.parametrize(
    ("observed", "chi_square", "p_value"),
    [
        ([50, 50], 0.0, 1.0),
        ([60, 40], 4.0, 0.0455003),  # 2 (1 - Phi(2))
        ([70, 30], 16.0, 6.33425e-5),  # 2 (1 - Phi(4))
    ],
)
def test_two_cells_give_the_square_of_a_normal(observed: list[float], chi_square: float, p_value: float) -> None:
    fit = chi_square_fit([counts(observed, [0.5, 0.5])])
    assert fit.chi_square == pytest.approx(chi_square)
    assert fit.p_value == pytest.approx(p_value, rel=1e-5)
    assert (fit.num_draws, fit.degrees_of_freedom) == (100, 1)
    assert fit.total_variation == pytest.approx((observed[0] - 50) / 100)


def test_contexts_add_up() -> None:
    fit = chi_square_fit([counts([60, 40], [0.5, 0.5]), counts([30, 40, 30], [0.3, 0.4, 0.3])])
    assert (fit.num_draws, fit.degrees_of_freedom, fit.chi_square) == (200, 3, pytest.approx(4.0))
    assert fit.total_variation == pytest.approx(0.05)


def test_rare_tokens_share_a_cell() -> None:
    own_cell = chi_square_fit([counts([85, 4, 4, 7], [0.85, 0.04, 0.04, 0.07])])
    assert (own_cell.degrees_of_freedom, own_cell.num_draws) == (2, 100)
    too_few = chi_square_fit([counts([50, 46, 4], [0.5, 0.47, 0.03])])
    assert (too_few.degrees_of_freedom, too_few.chi_square) == (1, pytest.approx(0.0))


def test_token_that_cannot_be_is_refused_even_if_it_came_once() -> None:
    fit = chi_square_fit([counts([500, 499, 1], [0.5, 0.5, 0])])
    assert (fit.num_impossible, fit.p_value) == (1, 0)
    assert not fit.holds(num_tests=1)


def test_nothing_to_test_is_no_refusal() -> None:
    assert chi_square_fit([counts([3, 2], [0.5, 0.5])]).p_value == 1


def test_level_and_noise_floor_are_what_they_say() -> None:
    """A thousand tests of honest draws: p is uniform, and the mean distance is the floor."""
    rng = np.random.default_rng(5)
    p_V = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    fits = [chi_square_fit([counts(rng.multinomial(n, p_V), p_V) for n in (100, 200)]) for _ in range(1000)]
    p_values = np.array([fit.p_value for fit in fits])
    for level in (0.05, 0.25, 0.5):
        assert (p_values < level).mean() == pytest.approx(level, abs=0.04)
    measured, promised = (np.mean([getattr(fit, name) for fit in fits]) for name in ("total_variation", "noise_floor"))
    assert measured == pytest.approx(promised, rel=0.02)


def test_tests_share_one_false_alarm() -> None:
    fit = Fit(100, 1, 10.0, 0, FALSE_ALARMS / 5, 0.0, 0.0)
    assert fit.holds(num_tests=5)
    assert not fit.holds(num_tests=4)
