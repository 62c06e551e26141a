"""Statistics and their intervals: values known by hand, and how often an interval holds the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from claims.bootstrap import averages, estimate, samples
from claims.errors import ClaimError
from claims.measures import Measure, Value
from claims.statistics import STATISTICS, Measured
from claims.tables import Tables
from tests.claims.made_up import World

LATENCY = {"column": "per_token_latency_ms", "average": "median"}
TOKENS = {"column": "tokens_per_step", "average": "mean", "weight": "num_decoding_steps"}
RATIO = {
    "statistic": "ratio",
    "table": "server",
    "value": LATENCY,
    "numerator": {"mode": "incremental"},
    "denominator": {"mode": "tree"},
    "pair_by": ["batch_size"],
}


def measured(folder: Path, world: World, measure: Mapping[str, Any]) -> Measured:
    tables = Tables(world.write(folder))
    made: Measure = TypeAdapter(Measure).validate_python(measure)
    rows = tables.rows(made.table)
    return STATISTICS[made.statistic](tables, made, rows[rows["status"] == "ok"] if "status" in rows else rows)


def grid(world: World, latencies: Mapping[tuple[str, int], float], **cells: Any) -> World:
    for (mode, batch), latency in latencies.items():
        world.add("server", latency, mode=mode, batch_size=batch, **cells)
    return world


def test_a_ratio_pools_its_pairs_by_the_geometric_mean(tmp_path: Path) -> None:
    latencies = {("incremental", 1): 8.0, ("tree", 1): 2.0, ("incremental", 2): 9.0, ("tree", 2): 9.0}
    found = measured(tmp_path, grid(World(noise=0), latencies), RATIO)
    assert found.estimate is not None
    # Without noise all that differs between prompts is their own, and cancels out.
    assert [found.estimate.value, found.estimate.low, found.estimate.high] == pytest.approx([2, 2, 2])
    assert (found.n, found.num_prompts, found.text) == (24, 12, "2 (1 to 4 in 2 pairs)")


def test_a_pair_without_its_other_half_is_left_out(tmp_path: Path) -> None:
    latencies = {("incremental", 1): 8.0, ("tree", 1): 2.0, ("incremental", 2): 9.0, ("tree", 4): 9.0}
    found = measured(tmp_path, grid(World(noise=0), latencies), RATIO)
    assert found.text == "4"


def test_two_candidates_for_a_pair_are_an_error(tmp_path: Path) -> None:
    world = grid(World(), {("incremental", 1): 8.0, ("tree", 1): 2.0})
    grid(world, {("tree", 1): 2.0}, size="medium")
    with pytest.raises(ClaimError, match=r"server: two rows with mode tree and \{'batch_size': '1'\}; fix: name what"):
        measured(tmp_path, world, RATIO)


def test_a_weighted_mean_is_tokens_over_steps(tmp_path: Path) -> None:
    world = World()
    for mode in ("incremental", "tree"):
        world.add("server", mode=mode)
    for number, row in enumerate(world.requests):
        tree = row["scenario"] == "server_1"
        row |= {"num_decoding_steps": number % 12 + 1, "tokens_per_step": (number % 12 + 1) * (1 if tree else 2)}
    found = measured(tmp_path, world, RATIO | {"value": TOKENS, "denominator": {"mode": "tree"}})
    # Weighted: 650/78 over 325/78; an unweighted mean would be the same ratio, so the sides are looked at, too.
    assert found.text == "2"
    value = Value(**TOKENS)
    frame = pd.DataFrame(world.requests)
    (tree,) = averages([samples(frame, {"server_1": ""}, value)["server_1"]], value).values_S
    assert tree == pytest.approx(sum(n * n for n in range(1, 13)) / sum(range(1, 13)))


def test_a_trend_is_the_factor_per_doubling(tmp_path: Path) -> None:
    world = World(noise=0)
    for size, scale in (("small", 1.0), ("large", 3.0)):
        for batch, gain in ((1, 4.0), (2, 2.0), (4, 1.0)):
            grid(world, {("incremental", batch): 8.0 * scale, ("tree", batch): 8.0 / gain}, size=size)
    trend = RATIO | {"statistic": "trend", "axis": "batch_size", "pair_by": ["size", "batch_size"]}
    found = measured(tmp_path, world, trend)
    assert found.estimate is not None
    assert found.estimate.value == found.estimate.high == pytest.approx(0.5)
    assert found.text == "x 0.5 per doubling"


def test_a_trend_needs_two_places(tmp_path: Path) -> None:
    world = grid(World(), {("incremental", 1): 8.0, ("tree", 1): 2.0})
    assert measured(tmp_path, world, RATIO | {"statistic": "trend", "axis": "batch_size"}).estimate is None


BEST = {
    "statistic": "best",
    "table": "tree_width_latency",
    "value": LATENCY,
    "axis": "tree_width",
    "places": [2, 3],
    "pair_by": ["batch_size"],
}


@pytest.mark.parametrize(("slow", "worst"), [(1.0, 0.8), (3.0, 1.25)])
def test_the_best_is_judged_where_it_is_worst(tmp_path: Path, slow: float, worst: float) -> None:
    world = World(noise=0)
    for batch in (4, 8):
        for width, latency in {1: 10.0, 2: 8.0, 3: 9.0, 5: 20.0}.items():
            late = slow if (batch, width) == (8, 2) else 1.0
            world.add("tree_width_latency", latency * late, tree_width=width, batch_size=batch)
    if slow > 1:
        world.add("tree_width_latency", 7.2, tree_width=4, batch_size=8)
    found = measured(tmp_path, world, BEST)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(worst)
    assert found.text == ("2 at 4, 2 at 8" if slow == 1 else "2 at 4, 4 at 8")


def test_a_best_without_a_competitor_is_none(tmp_path: Path) -> None:
    world = World()
    world.add("tree_width_latency", tree_width=2)
    assert measured(tmp_path, world, BEST).estimate is None


RATES = {
    "statistic": "ratio_of_column",
    "table": "success_rates",
    "column": "success_rate",
    "low": "ci_low",
    "high": "ci_high",
    "count": "num_tried",
    "numerator": {"k": 5},
    "denominator": {"k": 1},
    "pair_by": ["prompt_set"],
}


def test_a_ratio_of_intervals_takes_their_far_ends(tmp_path: Path) -> None:
    world = World()
    for prompts, low, high in (("piqa", 0.4, 0.8), ("webqa", 0.6, 1.0)):
        row = world.add("rank_success", prompt_set=prompts)
        for k, rate in ((1, low), (5, high)):
            world.rates.append(
                row | {"k": k, "num_tried": 10, "success_rate": rate, "ci_low": rate - 0.1, "ci_high": rate + 0.1}
            )
    found = measured(tmp_path, world, RATES)
    assert found.estimate is not None and found.sides is not None
    assert [found.estimate.value, found.estimate.low, found.estimate.high] == pytest.approx([1.8, 0.8 / 0.6, 1.0 / 0.4])
    assert [side.value for side in found.sides] == pytest.approx([0.5, 0.9])
    assert found.n == 40
    world.rates[0]["ci_low"] = ""
    found = measured(tmp_path, world, RATES)
    assert found.text == "0.6 and 1"
    # Its other rows have their values, so that it is not a record that is missing.
    assert found.lacking == ()


@pytest.mark.parametrize(
    ("column", "word", "message"),
    [
        ("per_token_latency_ms", "many", r"requests.csv: per_token_latency_ms is not a number"),
        ("per_token_latency_ms", "nan", r"requests.csv: per_token_latency_ms is not a number"),
        ("per_token_latency_ms", "inf", r"requests.csv: per_token_latency_ms is not a number"),
        ("prompt_index", "first", r"requests.csv: prompt_index is not a number"),
    ],
)
def test_cells_that_are_no_numbers_are_one_error(tmp_path: Path, column: str, word: str, message: str) -> None:
    world = grid(World(), {("incremental", 1): 8.0, ("tree", 1): 2.0})
    world.requests[0][column] = word
    with pytest.raises(ClaimError, match=message):
        measured(tmp_path, world, RATIO)


def test_scenarios_that_no_table_knows_are_an_error(tmp_path: Path) -> None:
    world = grid(World(), {("incremental", 1): 8.0, ("tree", 1): 2.0})
    world.equality[0]["scenario"] = "stranger"
    share = {"statistic": "share", "table": "token_equality", "part": "a", "whole": "b"}
    with pytest.raises(ClaimError, match=r"token_equality.csv: scenarios of no experiment's table: stranger"):
        measured(tmp_path, world, share)


def simulated(seed: int, num_prompts: int, num_pairs: int) -> tuple[float, float]:
    """The ends of the interval of a ratio whose truth is 1.5, of pairs that share their prompts."""
    rng = np.random.default_rng([3, seed])
    own_P, gain_P = rng.normal(0, 0.4, num_prompts), rng.normal(np.log(1.5), 0.2, num_prompts)
    rows = []
    for pair in range(num_pairs):
        for side, gains in (("top", gain_P), ("bottom", 0)):
            for prompt, value in enumerate(np.exp(own_P + gains + rng.normal(0, 0.05, num_prompts))):
                rows.append((f"{side}{pair}", 0, prompt, value))
    requests = pd.DataFrame(rows, columns=["scenario", "repeat", "prompt_index", "per_token_latency_ms"])
    value = Value(column="per_token_latency_ms", average="median")
    names = [f"{side}{pair}" for pair in range(num_pairs) for side in ("top", "bottom")]
    found = averages(list(samples(requests, dict.fromkeys(names, "same"), value).values()), value)
    logs_DS = np.log(found.draws_DS)
    interval = estimate(1.0, np.exp((logs_DS[:, ::2] - logs_DS[:, 1::2]).mean(axis=1)))
    return interval.low, interval.high


@pytest.mark.parametrize(("num_prompts", "num_pairs"), [(12, 1), (24, 1), (12, 3)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(num_prompts: int, num_pairs: int) -> None:
    """Pairs share what each prompt gains, too: pooling them must not narrow the interval as if they did not."""
    ends = np.array([simulated(seed, num_prompts, num_pairs) for seed in range(80)])
    share = ((ends[:, 0] <= 1.5) & (ends[:, 1] >= 1.5)).mean()
    assert 0.88 <= share <= 1.0, share
    # An interval that ignores that both sides have the same prompts is half as wide again.
    assert np.log(ends[:, 1] / ends[:, 0]).mean() < 1.9 * 1.96 * 0.6 / num_prompts**0.5
