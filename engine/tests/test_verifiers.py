"""The stochastic verifiers: cases computed by hand, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from treespec.audit.enumeration import ScriptedDraws
from treespec.config.sampling import Sampling
from treespec.errors import ConfigError
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals, TreeBuilder
from treespec.verify import Verifier, VerifyResult, require_lossless, verifiers

NAMES = ("block", "greedy", "mss", "recursive_rejection", "sampler_match", "token_rejection", "traversal")
RATIO_RULES = ("block", "mss", "recursive_rejection", "token_rejection", "traversal")
DRAWN = Sampling(temperature=1)
Q = [0.2, 0.5, 0.2, 0.1]
ACCEPT, REJECT = 1, 0


def verifier(name: str) -> Verifier:
    return verifiers().get(name)


def probabilities(rows: Sequence[Sequence[float]]) -> TargetRows:
    """A target that has exactly these distributions."""
    return TargetRows(torch.tensor(rows, dtype=torch.float64).log(), [DRAWN] * len(rows))


def proposed(draws: Sequence[tuple[int, int]], contract: Contract, q: Sequence[Sequence[float]]) -> Proposals:
    """Draws as (parent node, token), in order; the row of q of a draw is that of its parent."""
    builder = TreeBuilder(0)
    nodes = [builder.add(parent, token) for parent, token in draws]
    is_drawn = contract is not Contract.DETERMINISTIC
    return Proposals(
        tree=builder.build(),
        nodes=np.array(nodes, dtype=np.int64),
        contracts=(contract,) * len(nodes),
        drafters=np.zeros(len(nodes), dtype=np.int64),
        q_rows=np.array([parent if is_drawn else -1 for parent, _ in draws], dtype=np.int64),
        q_QV=torch.tensor(q, dtype=torch.float64) if is_drawn else None,
    )


def scripted(name: str, item: Proposals, target: TargetRows, *script: int) -> tuple[VerifyResult, float]:
    """What the outcomes of a script lead to, and their probability."""
    draws = ScriptedDraws([script])
    (result,) = verifier(name).verify([item], target, draws)
    return result, draws.probabilities[0]


@pytest.mark.parametrize("name", RATIO_RULES)
def test_one_draw_is_accepted_by_p_over_q(name: str) -> None:
    item = proposed([(0, 1)], Contract.IID, [Q])
    target = probabilities([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]])
    accepted, chance = scripted(name, item, target, ACCEPT, 2)
    assert accepted == VerifyResult((1,), 2) and chance == pytest.approx(0.3 / 0.5 * 0.25)
    # (p - q)+ leaves token 0 alone.
    recovered, chance = scripted(name, item, target, REJECT, 0)
    assert recovered == VerifyResult((), 0) and chance == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["recursive_rejection", "traversal"])
def test_a_draw_without_replacement_is_judged_by_what_the_urn_still_held(name: str) -> None:
    item = proposed([(0, 1), (0, 0)], Contract.WITHOUT_REPLACEMENT, [Q])
    target = probabilities([[0.3, 0.1, 0.4, 0.2], Q, Q])
    # Token 1 rejected (0.8): p = (0.1, 0, 0.2, 0.1) / 0.4, q without it (0.4, 0, 0.4, 0.2).
    result, chance = scripted(name, item, target, REJECT, ACCEPT, 3)
    assert result == VerifyResult((2,), 3) and chance == pytest.approx(0.8 * (0.25 / 0.4) * 0.1)
    # Both rejected: (p - q)+ = (0, 0, 0.1, 0.05).
    result, chance = scripted(name, item, target, REJECT, REJECT, 3)
    assert result == VerifyResult((), 3) and chance == pytest.approx(0.8 * 0.375 / 3)


@pytest.mark.parametrize("name", ["mss", "recursive_rejection", "traversal"])
def test_an_independent_draw_is_judged_by_the_same_q_again(name: str) -> None:
    item = proposed([(0, 1), (0, 0)], Contract.IID, [[0.5, 0.3, 0.1, 0.1]])
    target = probabilities([[0.4, 0.1, 0.25, 0.25], Q, Q])
    # Token 1 rejected (2/3): p = (0, 0, 0.15, 0.15) / 0.3, so token 0 has nothing left.
    result, chance = scripted(name, item, target, REJECT, REJECT, 2)
    assert result == VerifyResult((), 2) and chance == pytest.approx(2 / 3 / 2)
    item = proposed([(0, 1), (0, 2)], Contract.IID, [[0.3, 0.3, 0.3, 0.1]])
    target = probabilities([[0.35, 0.1, 0.35, 0.2], Q, Q])
    # Token 1 rejected (2/3): p = (0.05, 0, 0.05, 0.1) / 0.2; token 2 is accepted by 0.25 / 0.3.
    result, chance = scripted(name, item, target, REJECT, ACCEPT, 1)
    assert result == VerifyResult((2,), 1) and chance == pytest.approx(2 / 3 * (0.25 / 0.3) * 0.5)


@pytest.mark.parametrize("name", ["mss", "recursive_rejection", "traversal"])
def test_a_token_drawn_twice_is_tried_twice(name: str) -> None:
    item = proposed([(0, 1), (0, 1)], Contract.IID, [Q])
    target = probabilities([[0.3, 0.3, 0.3, 0.1], Q])
    # Rejected (0.4) it has no mass left; (0.1, 0, 0.1, 0) / 0.2 less q again is (0.3, 0, 0.3, 0).
    result, chance = scripted(name, item, target, REJECT, REJECT, 2)
    assert result == VerifyResult((), 2) and chance == pytest.approx(0.4 / 2)


@pytest.mark.parametrize("name", ["recursive_rejection", "traversal"])
def test_a_deterministic_token_is_accepted_by_its_own_probability(name: str) -> None:
    item = proposed([(0, 1), (0, 2)], Contract.DETERMINISTIC, [])
    target = probabilities([[0.4, 0.3, 0.2, 0.1], Q, Q])
    result, chance = scripted(name, item, target, REJECT, ACCEPT, 0)
    assert result == VerifyResult((2,), 0) and chance == pytest.approx(0.7 * (0.2 / 0.7) * 0.2)
    result, chance = scripted(name, item, target, REJECT, REJECT, 3)
    assert result == VerifyResult((), 3) and chance == pytest.approx(0.7 * (0.5 / 0.7) * (0.1 / 0.5))


CHAIN = proposed([(0, 1), (1, 0)], Contract.IID, [Q, Q])
CHAIN_TARGET = probabilities([[0.5, 0.3, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1], Q])


def test_token_rejection_judges_a_chain_from_the_root() -> None:
    result, chance = scripted("token_rejection", CHAIN, CHAIN_TARGET, ACCEPT, ACCEPT, 1)
    assert result == VerifyResult((1, 2), 1) and chance == pytest.approx(0.6 * 1 * 0.5)


@pytest.mark.parametrize("name", ["block", "traversal"])
def test_a_likely_child_saves_an_unlikely_parent(name: str) -> None:
    # p/q is 0.6 and then 2: together 1.2, so the whole chain is accepted for certain.
    result, chance = scripted(name, CHAIN, CHAIN_TARGET, ACCEPT, 1)
    assert result == VerifyResult((1, 2), 1) and chance == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["block", "traversal"])
def test_a_prefix_is_accepted_by_what_its_rejected_end_left(name: str) -> None:
    item = proposed([(0, 1), (1, 1)], Contract.IID, [Q, Q])
    # Both tokens together 0.36. Below the first: (0.6 p - q)+ = (0.04, 0, 0, 0) of p = (0.4, 0.3, 0.2, 0.1).
    kept = 0.04 / (0.04 + 1 - 0.6)
    result, chance = scripted(name, item, CHAIN_TARGET, REJECT, ACCEPT, 0)
    assert result == VerifyResult((1,), 0) and chance == pytest.approx(0.64 * kept)
    result, chance = scripted(name, item, CHAIN_TARGET, REJECT, REJECT, 0)
    assert result == VerifyResult((), 0) and chance == pytest.approx(0.64 * (1 - kept))


def test_traversal_tries_the_next_child_with_what_the_first_one_left() -> None:
    item = proposed([(0, 1), (1, 1), (1, 0)], Contract.IID, [Q, Q])
    target = probabilities([[0.5, 0.3, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1], Q, Q])
    # After the leaf (0.36) is lost: alpha 1/11, p all on token 0, whose ratio is 5.
    result, chance = scripted("traversal", item, target, REJECT, ACCEPT, 3)
    assert result == VerifyResult((1, 3), 3) and chance == pytest.approx(0.64 * 5 / 11 * 0.1)


@pytest.mark.parametrize("name", RATIO_RULES)
def test_a_rejection_of_no_probability_leaves_the_target_as_it_is(name: str) -> None:
    target = probabilities([Q, [1.0, 0.0, 0.0, 0.0]])
    q = target.probabilities([0]).tolist()  # equal to the last bit: (p - q)+ is empty
    result, chance = scripted(name, proposed([(0, 1)], Contract.IID, q), target, REJECT, 3)
    assert result == VerifyResult((), 3) and chance == 0


def test_the_table_holds_the_rules_of_the_literature() -> None:
    assert tuple(verifiers().names) == NAMES


@pytest.mark.parametrize(
    ("name", "contract", "is_chain", "allowed_text"),
    [
        ("mss", Contract.DETERMINISTIC, False, "allowed: iid"),
        ("mss", Contract.WITHOUT_REPLACEMENT, False, "allowed: iid"),
        ("token_rejection", Contract.IID, False, "allowed: one child per node"),
        ("block", Contract.IID, False, "allowed: one child per node"),
        ("greedy", Contract.IID, False, "allowed: temperature 0"),
    ],
)
def test_what_a_rule_is_not_lossless_for_it_refuses(
    name: str, contract: Contract, is_chain: bool, allowed_text: str
) -> None:
    with pytest.raises(ConfigError, match=allowed_text):
        require_lossless(
            name, verifier(name), frozenset({contract}), is_chain=is_chain, is_greedy=False, where="somewhere"
        )
