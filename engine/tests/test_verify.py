"""Greedy verification accepts exactly the path that greedy decoding would take."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples, trees
from treespec.config import Sampling
from treespec.ops.draws import VerifyDraws
from treespec.ops.sampling import TargetRows
from treespec.tree import Contract, Proposals, TokenTree, TreeBuilder
from treespec.verify import GreedyVerifier, VerifyResult

VOCAB_SIZE = 8


def one_hot(choices: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(choices), VOCAB_SIZE).float()


def judge(proposals: list[Proposals], logits_TV: torch.Tensor) -> list[VerifyResult]:
    target = TargetRows(logits_TV, [Sampling()] * len(logits_TV))
    return GreedyVerifier().verify(proposals, target, VerifyDraws([], []))


def verify(tree: TokenTree, choices: list[int]) -> VerifyResult:
    (result,) = judge([Proposals.deterministic(tree)], one_hot(choices))
    return result


choices_of_nodes = st.lists(st.integers(3, VOCAB_SIZE - 1), min_size=15, max_size=15)


@given(forest=st.lists(st.tuples(trees(VOCAB_SIZE, max_nodes=15), choices_of_nodes), min_size=1, max_size=5))
@examples(200)
def test_accepted_is_the_longest_path_of_the_targets_choices(forest: list[tuple[TokenTree, list[int]]]) -> None:
    proposals = [Proposals.deterministic(tree) for tree, _ in forest]
    logits = torch.cat([one_hot(choices[: len(tree)]) for tree, choices in forest])
    for (tree, choices), result in zip(forest, judge(proposals, logits), strict=True):
        right = [
            node
            for node in range(1, len(tree))
            if all(tree.token_ids[n] == choices[tree.parents[n]] for n in path(tree, node))
        ]
        deepest = max(right, key=lambda node: tree.depths[node], default=0)
        assert result.accepted_nodes == tuple(path(tree, deepest))
        assert result.next_token_id == choices[deepest]


def path(tree: TokenTree, node: int) -> list[int]:
    """Nodes from below the root to ``node``."""
    nodes = []
    while node:
        nodes.append(node)
        node = int(tree.parents[node])
    return nodes[::-1]


def test_rejected_node_hides_its_right_descendants() -> None:
    assert verify(TokenTree.chain([3, 4, 5]), [7, 5, 6]) == VerifyResult((), 7)


def test_whole_path_is_followed_by_a_bonus_token() -> None:
    assert verify(TokenTree.chain([3, 4, 5]), [4, 5, 6]) == VerifyResult((1, 2), 6)


def test_equal_tokens_on_two_branches_are_told_apart() -> None:
    builder = TreeBuilder(3)
    left, right = builder.add(0, 4), builder.add(0, 5)
    builder.add(left, 6)
    below_right = builder.add(right, 6)
    assert verify(builder.build(), [5, 7, 6, 7, 4]) == VerifyResult((right, below_right), 4)


def test_root_alone_is_incremental_decoding() -> None:
    assert verify(TokenTree.root(3), [6]) == VerifyResult((), 6)


def test_greedy_verification_is_lossless_for_every_contract() -> None:
    assert GreedyVerifier.contracts == frozenset(Contract)
