"""The enumeration certificate: proves what is lossless, sees what is not, and knows how much is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from treespec.audit import Case, CertificateRow, ControlRow, Status, certify, default_cases, run_controls
from treespec.audit.enumeration import Drafting, ScriptedDraws, every_tree
from treespec.audit.toy import KINDS, toy_world
from treespec.draft.selection import SELECTIONS
from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals, Topology
from treespec.verify import VerifyResult, verifiers

CHAIN_CASES = tuple(Case(((name, (1, 1, 1)),), vocab_size=3) for name in sorted(SELECTIONS))
TREE_CASES = tuple(
    Case(((name, widths),), vocab_size=3, num_seeds=1) for name in sorted(SELECTIONS) for widths in ((3,), (2, 1))
)
DEEP_CASE = Case((("without_replacement", (2, 2)),), vocab_size=3, kinds=("random", "mixed"), num_seeds=1)
MERGED_CASES = tuple(case for case in default_cases() if len(case.drafts) == 2)
RULED_CASES = tuple(case for case in default_cases() if case.rule.temperature != 1)
CASES = (*CHAIN_CASES, *TREE_CASES, DEEP_CASE, *MERGED_CASES, *RULED_CASES)


@cache
def rows() -> list[CertificateRow]:
    table = verifiers()
    return certify({name: table.get(name) for name in table.names}, CASES)


def accepted(verifier: str) -> dict[tuple[str, str, str], float]:
    return {
        (row.selection, row.topology, row.sampling): row.expected_accepted
        for row in rows()
        if row.verifier == verifier and row.expected_accepted is not None
    }


def test_every_rule_is_lossless_wherever_it_does_not_refuse() -> None:
    judged = [row for row in rows() if row.status is not Status.REFUSED]
    assert {row.verifier for row in judged} == set(verifiers().names)
    for row in judged:
        assert row.status is Status.LOSSLESS, row
        assert row.total_variation is not None and row.total_variation < 1e-12 and row.num_outcomes > 0


def test_refused_is_what_a_rule_does_not_declare() -> None:
    for row in rows():
        verifier = verifiers().get(row.verifier)
        contracts = {SELECTIONS[name].contract for name in row.selection.split(" + ")}
        is_fit = (
            contracts <= verifier.contracts
            and (not verifier.chains_only or set(row.topology) <= set("<1,>"))
            and (not verifier.greedy_only or row.sampling == "temperature 0")
        )
        assert (row.status is Status.REFUSED) == (not is_fit), row
        assert (row.reason is not None and repr(row.verifier) in row.reason) == (not is_fit), row


def test_token_rejection_accepts_what_the_closed_form_says() -> None:
    chains = [row for row in rows() if row.verifier == "token_rejection" and row.status is Status.LOSSLESS]
    assert len(chains) >= 3
    for row in chains:
        assert row.expected_accepted == pytest.approx(row.accepted_by_token_rejection, abs=1e-12), row


@pytest.mark.parametrize(
    ("better", "other"),
    [("block", "token_rejection"), ("traversal", "recursive_rejection"), ("recursive_rejection", "sampler_match")],
)
def test_the_better_rule_accepts_more(better: str, other: str) -> None:
    ours, theirs = accepted(better), accepted(other)
    both = [case for case in ours if case in theirs]
    # The last pair holds for what was drawn; deterministic children have no ratio to gain by.
    assert all(ours[case] >= theirs[case] - 1e-12 for case in both)
    assert any(ours[case] > theirs[case] + 0.01 for case in both)


def test_traversal_of_a_chain_accepts_what_block_verification_does() -> None:
    chains, same = accepted("block"), accepted("traversal")
    assert chains and all(same[case] == pytest.approx(value, abs=1e-12) for case, value in chains.items())


class AcceptsTheFirstChild:
    """A rule that is not lossless and says it were."""

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = False

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        results, start = [], 0
        for item, each in enumerate(proposals):
            path = [int(each.nodes[each.rows_below[0][0]])] if each.rows_below[0] else []
            p_1V = target.probabilities([start + (path or [0])[-1]])
            (token,) = draws.choose([item], p_1V, [len(path) + 1])
            results.append(VerifyResult(tuple(path), token))
            start += len(each.tree)
        return results


def test_a_third_partys_wrong_rule_is_lossy() -> None:
    cases = [Case((("iid", (1,)),), vocab_size=3, kinds=(kind,), num_seeds=1) for kind in ("random", "equal")]
    random, equal = certify({"first_child": AcceptsTheFirstChild()}, cases)
    assert random.status is Status.LOSSY and random.total_variation is not None and random.total_variation > 0.01
    assert equal.status is Status.LOSSLESS  # a draft that is the target may always be accepted


def test_the_default_certificate_covers_every_selection_portfolios_and_temperatures() -> None:
    cases = default_cases()
    assert {name for case in cases for name, _ in case.drafts} == set(SELECTIONS)
    assert {case.sampling for case in cases} == {
        "temperature 1",
        "temperature 0",
        "temperature 0.7, top_k 3, top_p 0.9",
    }
    for name in SELECTIONS:
        own = {case.topology for case in cases if case.selection == name}
        assert {"<1,1,1>", "<2>", "<3>", "<2,2>", "<2,1>", "<2,1,1>"} <= own
    assert sum(len(case.drafts) == 2 for case in cases) >= 4
    # A portfolio's members draw from drafts of their own.
    assert [draft.drafter for draft in MERGED_CASES[0].drafting(SELECTIONS)] == [0, 1]


# Controls.


@cache
def controls() -> dict[tuple[str, str], ControlRow]:
    return {(row.name, row.verifier): row for row in run_controls(num_worlds=3)}


@pytest.mark.parametrize(
    ("name", "verifier", "at_least"),
    [
        ("p/q on top-k children", "mss", 0.2),
        ("raw q of truncated draws", "mss", 0.1),
        ("pruned after drawing", "mss", 0.1),
        ("multiplicity dropped", "mss", 0.01),
        ("without replacement judged as independent", "mss", 0.01),
        ("draft noise decides acceptance", "token_rejection", 0.1),
        ("draft noise decides recovery", "token_rejection", 0.1),
        ("p for the residual", "recursive_rejection", 0.1),
        ("p for the residual", "block", 0.1),
        ("p for the residual", "traversal", 0.1),
    ],
)
def test_a_mistake_is_caught_and_the_right_way_is_not(name: str, verifier: str, at_least: float) -> None:
    row = controls()[name, verifier]
    assert row.is_caught
    assert row.total_variation > at_least
    assert row.right_total_variation < 1e-12


def test_some_mistakes_look_like_progress() -> None:
    """Why a performance benchmark cannot stand in for an audit: the mistake accepts more."""
    row = controls()["p/q on top-k children", "mss"]
    assert row.expected_accepted > row.right_expected_accepted


# The machinery.


def test_scripts_reach_every_outcome_once() -> None:
    world = toy_world("random", vocab_size=3, depth=1)
    drawn = every_tree(world, [Drafting(SELECTIONS["without_replacement"], Topology.from_expansion((2,)))])
    orders = [tuple(tree.value.proposals.tree.token_ids[tree.value.proposals.nodes]) for tree in drawn]
    assert sorted(orders) == [(a, b) for a in range(3) for b in range(3) if a != b]
    q = world.distribution(world.drafts_PV[0])[0]
    for (a, b), tree in zip(orders, drawn, strict=True):
        assert tree.probability == pytest.approx(q[a] * q[b] / (1 - q[a]))


def test_impossible_outcomes_are_not_explored() -> None:
    draws = ScriptedDraws([()])
    assert draws.answer(0, [0.0, 0.25, 0.0, 0.75]) == 1
    assert draws.unexplored == [(0, (3,))] and draws.probabilities == [0.25]


@pytest.mark.parametrize("chances", [[float("nan"), 1.0], [-0.1, 1.1]])
def test_what_is_not_a_probability_is_noticed(chances: list[float]) -> None:
    with pytest.raises(AssertionError, match="not probabilities"):
        ScriptedDraws([()]).answer(0, chances)


@pytest.mark.parametrize("kind", KINDS)
def test_toy_worlds_are_of_their_kind(kind: str) -> None:
    world = toy_world(kind, vocab_size=4, depth=2, seed=1)
    p, q = world.target_distribution, world.distribution(world.drafts_PV[0])
    assert p.shape == q.shape == (21, 4)
    assert np.allclose(p.sum(1), 1) and np.allclose(q.sum(1), 1)
    held = {
        "random": bool((p > 0).all() and (q > 0).all() and not np.allclose(p, q)),
        "zeros": bool((p == 0).any() and (q == 0).any() and (np.minimum(p, q).sum(1) > 0).any()),
        "disjoint": bool((np.minimum(p, q) == 0).all()),
        "equal": bool((p == q).all()),
        "one_hot": bool(((p.max(1) == 1) | (q.max(1) == 1)).all() and (p.max(1) < 1).any()),
        "mixed": bool((p == q).all(1).any() and (np.minimum(p, q).sum(1) == 0).any() and (p > 0).all(1).any()),
    }
    assert held[kind]


def test_truth_is_the_product_of_the_targets_conditionals() -> None:
    world = toy_world("random", vocab_size=2, depth=1)
    p = world.target_distribution
    expected = [p[0, a] * p[1 + a, b] for a in range(2) for b in range(2)]
    assert world.truth().tolist() == pytest.approx(expected)
