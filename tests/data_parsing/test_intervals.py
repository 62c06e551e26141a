"""Intervals follow from the record alone, cover what they should, and take repeats and prompts as the units."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from data_parsing.intervals import median_interval, median_ratio_interval, per_token_grid, rate_intervals, sums_grid


def grid(cells: list[list[float]]) -> pd.DataFrame:
    return pd.DataFrame(cells)


def random_grid(generator: np.random.Generator, shape: tuple[int, int]) -> pd.DataFrame:
    return pd.DataFrame(generator.lognormal(0.0, 0.3, size=shape))


def test_grid_divides_by_tokens_really_generated() -> None:
    requests = pd.DataFrame(
        {
            "repeat": [0, 0, 1],
            "prompt_index": [0, 1, 0],
            "num_output_tokens": [10, 0, 5],
            "latency_us": [20000.0, 700.0, 20000.0],
        }
    )
    cells = per_token_grid(requests).to_numpy()
    np.testing.assert_array_equal(cells, [[2.0, np.nan], [4.0, np.nan]])


def test_equal_requests_of_a_batch_are_one_cell() -> None:
    requests = pd.DataFrame(
        {
            "repeat": [0, 0, 0, 0, 1, 1, 1, 1],
            "prompt_index": [0, 0, 1, 1] * 2,
            "num_output_tokens": [10] * 8,
            "latency_us": [10000.0, 30000.0, 50000.0, 50000.0, 20000.0, 20000.0, 40000.0, 60000.0],
        }
    )
    np.testing.assert_array_equal(per_token_grid(requests).to_numpy(), [[2.0, 5.0], [2.0, 5.0]])


def test_interval_holds_the_median_and_is_reproducible() -> None:
    cells = random_grid(np.random.default_rng(1), (3, 32))
    estimate = median_interval(cells)
    assert estimate.value == np.median(cells.to_numpy())
    assert estimate.low < estimate.value < estimate.high
    assert median_interval(cells) == estimate


def test_constant_cells_have_no_width() -> None:
    estimate = median_interval(grid([[3.0] * 8] * 2))
    assert (estimate.value, estimate.low, estimate.high) == (3.0, 3.0, 3.0)


def test_repeats_that_differ_widen_the_interval() -> None:
    cells = random_grid(np.random.default_rng(2), (3, 32)).to_numpy()
    calm = median_interval(pd.DataFrame(cells))
    shaken = median_interval(pd.DataFrame(cells * np.array([[0.5], [1.0], [2.0]])))
    assert (shaken.high - shaken.low) / shaken.value > 2 * (calm.high - calm.low) / calm.value


def test_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    estimates = [median_interval(random_grid(generator, (1, 40))) for _ in range(120)]
    covered = sum(estimate.low <= 1.0 <= estimate.high for estimate in estimates)
    assert covered >= 0.88 * len(estimates)


def test_prompts_with_gaps_are_left_out() -> None:
    estimate = median_interval(grid([[1.0, math.nan, 50.0], [3.0, math.nan, math.nan]]))
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 1.0, 3.0)
    assert math.isnan(median_interval(grid([[math.nan]])).value)


def test_ratio_of_proportional_grids_is_exact() -> None:
    cells = random_grid(np.random.default_rng(4), (3, 16))
    estimate = median_ratio_interval(cells * 1.5, cells)
    np.testing.assert_allclose([estimate.value, estimate.low, estimate.high], 1.5)


def test_ratio_takes_only_repeats_and_prompts_that_both_have() -> None:
    wide = pd.DataFrame([[2.0, 4.0, 900.0], [2.0, 4.0, 900.0], [700.0, 800.0, 900.0]])
    narrow = pd.DataFrame([[1.0, 2.0], [1.0, math.nan]])
    estimate = median_ratio_interval(wide, narrow)
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 2.0, 2.0)
    nothing = median_ratio_interval(wide, pd.DataFrame([[1.0]], columns=[7]))
    assert math.isnan(nothing.value)


def test_sums_are_by_repeat_and_prompt() -> None:
    requests = pd.DataFrame({"repeat": [0, 0, 0, 1], "prompt_index": [5, 2, 5, 2]})
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
    sums = sums_grid(requests, values)
    np.testing.assert_array_equal(sums[:, :, 0], [[2, 5], [8, 0]])
    np.testing.assert_array_equal(sums[:, :, 1], [[20, 50], [80, 0]])


def test_rates_are_ratios_of_sums_with_the_same_draws_as_medians() -> None:
    generator = np.random.default_rng(5)
    whole = generator.integers(1, 20, size=(2, 12, 3)).astype(float)
    part = np.floor(whole * generator.random(whole.shape))
    estimates = rate_intervals(part, whole)
    draws = np.random.default_rng(20240427)
    repeats, prompts = draws.integers(2, size=(2000, 2)), draws.integers(12, size=(2000, 12))
    for item, estimate in enumerate(estimates):
        assert estimate.value == part[:, :, item].sum() / whole[:, :, item].sum()
        one_by_one = [
            part[np.ix_(r, p)][:, :, item].sum() / whole[np.ix_(r, p)][:, :, item].sum()
            for r, p in zip(repeats, prompts, strict=True)
        ]
        np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(one_by_one, [0.025, 0.975]))


def test_a_rate_of_nothing_is_nothing_and_draws_without_any_are_left_out() -> None:
    whole = np.array([[[0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]])
    part = np.array([[[0.0, 3.0], [0.0, 0.0], [0.0, 0.0]]])
    nothing, rare = rate_intervals(part, whole)
    assert math.isnan(nothing.value) and math.isnan(nothing.low) and math.isnan(nothing.high)
    assert (rare.value, rare.low, rare.high) == (0.75, 0.75, 0.75)


def test_interval_of_a_rate_covers_the_true_one_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(6)
    covered = 0
    for _ in range(150):
        whole = generator.integers(5, 15, size=(1, 40, 1)).astype(float)
        part = generator.binomial(whole.astype(int), 0.3).astype(float)
        (estimate,) = rate_intervals(part, whole)
        covered += estimate.low <= 0.3 <= estimate.high
    assert covered >= 0.88 * 150
