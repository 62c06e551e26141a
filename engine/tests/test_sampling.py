"""The distribution that tokens are drawn from, and the draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples
from treespec.chance import Chance, Purpose
from treespec.config import Sampling
from treespec.ops.draws import DraftDraws, VerifyDraws, pick
from treespec.ops.sampling import NUCLEUS_HEAD, TargetRows, distributions

V = 12
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([None, 1, 3, V, 100]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.1, 0.6]),
)


def reference(logits: list[float], rule: Sampling) -> list[float]:
    """The definition, token by token; ties do not occur."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if rule.temperature == 0:
        return [float(token == order[0]) for token in range(len(logits))]
    weights = [math.exp((value - max(logits)) / rule.temperature) for value in logits]
    kept = order[: rule.top_k]
    total = sum(weights[token] for token in kept)
    nucleus, mass = [], 0.0
    for token in kept:
        if mass >= rule.top_p * total and rule.top_p < 1:
            break
        nucleus.append(token)
        mass += weights[token]
    likely = {token for token in nucleus if weights[token] >= rule.min_p * weights[order[0]]}
    total = sum(weights[token] for token in likely)
    return [weights[token] / total if token in likely else 0.0 for token in range(len(logits))]


@given(rules=st.lists(samplings, min_size=1, max_size=4), seed=st.integers(0, 10_000))
@examples(300)
def test_distributions_are_what_their_definition_says(rules: list[Sampling], seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (len(rules), V)))
    p = distributions(logits, rules)
    for row, rule in enumerate(rules):
        assert p[row].tolist() == pytest.approx(reference(logits[row].tolist(), rule), abs=1e-12)


@pytest.mark.parametrize("spread", [0.01, 3.0], ids=["flat, larger than the head", "peaked"])
def test_a_nucleus_is_found_beyond_the_sorted_head(spread: float) -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, spread, (2, 4 * NUCLEUS_HEAD)))
    rule = Sampling(temperature=1.0, top_p=0.8)
    p = distributions(logits, [rule, rule])
    for row in range(2):
        assert p[row].tolist() == pytest.approx(reference(logits[row].tolist(), rule), abs=1e-12)


def test_half_precision_logits_are_sampled_in_float32() -> None:
    logits = torch.randn(2, V).bfloat16()
    assert distributions(logits, [Sampling(temperature=1.0)] * 2).dtype is torch.float32


def test_rows_of_the_target_are_a_copy_and_in_the_order_asked() -> None:
    logits = torch.arange(9.0).view(3, 3)
    rows = TargetRows(logits, [Sampling(temperature=0.0), Sampling(temperature=1.0), Sampling(temperature=0.0)])
    p = rows.probabilities([1, 0])
    assert p[1].tolist() == [0, 0, 1] and p[0].max() < 1
    p.zero_()
    assert rows.probabilities([0]).tolist() == [[0, 0, 1]]
    assert rows.likeliest() == [2, 2, 2]


@given(
    weights=st.lists(st.sampled_from([0.0, 1e-30, 0.2, 1.0, 7.0]), min_size=1, max_size=6).filter(any),
    u=st.one_of(st.floats(0, 1, exclude_max=True), st.just(1 - 2**-53), st.just(0.0)),
)
@examples(300)
def test_a_token_is_the_inverse_of_the_cumulated_weights(weights: list[float], u: float) -> None:
    (token,) = pick(torch.tensor([weights], dtype=torch.float64), [u])
    before = np.cumsum([0.0, *weights])
    assert weights[token] > 0
    assert before[token] <= u * before[-1] * (1 + 1e-12)
    assert u * before[-1] <= before[token + 1] * (1 + 1e-12)


def test_a_request_draws_the_same_in_any_batch() -> None:
    chances = [Chance(seed=7, request_id=request_id) for request_id in range(4)]
    weights, half = torch.ones(4, 50), torch.full((4,), 0.5)
    together = VerifyDraws(chances, [10, 11, 12, 13])
    coins = [together.accept(range(4), half) for _ in range(6)]
    tokens = together.choose(range(4), weights, [1, 2, 3, 4])
    for item, chance in enumerate(chances):
        alone = VerifyDraws([chance], [10 + item])
        assert [alone.accept([0], half[:1])[0] for _ in range(6)] == [row[item] for row in coins]
        assert alone.choose([0], weights[:1], [item + 1]) == [tokens[item]]
    assert len(set(tokens)) > 1


def test_what_the_target_emits_at_a_position_does_not_depend_on_the_step_that_reached_it() -> None:
    chance, weights = [Chance(1, 2)], torch.ones(1, 1000)
    assert VerifyDraws(chance, [5]).choose([0], weights, [3]) == VerifyDraws(chance, [7]).choose([0], weights, [1])


def test_streams_of_different_arguments_are_different() -> None:
    firsts = {
        float(Chance(seed, request).stream(purpose, position, source).random())
        for seed in (0, 1)
        for request in (0, 1)
        for purpose in Purpose
        for position in (0, 1, 2)
        for source in (0, 1)
    }
    assert len(firsts) == 2 * 2 * 3 * 3 * 2


def test_drafters_of_a_portfolio_draw_apart() -> None:
    weights = torch.ones(1, 10**6)
    tokens = [DraftDraws([Chance(0, 0)], [4], source).choose([0], weights, [1]) for source in range(3)]
    assert len({token for (token,) in tokens}) == 3


def test_frequencies_follow_the_weights() -> None:
    weights, n = torch.tensor([1.0, 0.0, 3.0, 6.0]), 20_000
    draws = VerifyDraws([Chance(11, request) for request in range(n)], [3] * n)
    counts = np.bincount(draws.choose(range(n), weights.expand(n, 4), [1] * n), minlength=4)
    expected = weights.numpy() / 10 * n
    assert counts[1] == 0
    chi2 = sum((counts[i] - expected[i]) ** 2 / expected[i] for i in (0, 2, 3))
    assert chi2 < 13.8, "2 degrees of freedom, p = 0.001"
    accepted = sum(draws.accept(range(n), torch.full((n,), 0.3)))
    assert abs(accepted - 0.3 * n) < 4 * math.sqrt(0.21 * n)
