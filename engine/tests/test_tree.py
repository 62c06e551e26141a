"""Token trees, how they are built, and the proposals they carry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples, trees
from treespec.tree import Contract, Proposals, TokenTree, TreeBuilder

insertions = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=30)


def path_to_root(tree: TokenTree, node: int) -> list[int]:
    path = []
    while node != -1:
        path.append(node)
        node = int(tree.parents[node])
    return path


@given(tree=trees(vocab_size=8, max_nodes=25))
@examples(200)
def test_a_node_sees_itself_and_its_ancestors_and_nothing_else(tree: TokenTree) -> None:
    for node in range(len(tree)):
        assert np.flatnonzero(tree.ancestors[node]).tolist() == sorted(path_to_root(tree, node))
        assert tree.depths[node] == len(path_to_root(tree, node)) - 1
        assert tree.path_tokens(node) == [int(tree.token_ids[n]) for n in reversed(path_to_root(tree, node))]


@given(tree=trees(vocab_size=8, max_nodes=25))
@examples(100)
def test_children_are_found_by_their_token(tree: TokenTree) -> None:
    found = {child: parent for parent, children in enumerate(tree.children) for child in children.values()}
    assert found == {node: int(tree.parents[node]) for node in range(1, len(tree))}
    assert all(tree.token_ids[child] == token for children in tree.children for token, child in children.items())


@given(insertions=insertions)
@examples(200)
def test_nodes_are_merged_by_root_path_and_only_by_it(insertions: list[tuple[int, int]]) -> None:
    builder = TreeBuilder(9)
    paths = {(9,): 0}
    by_node = [(9,)]
    for position, token_id in insertions:
        parent = position % len(builder)
        path = (*by_node[parent], token_id)
        node = builder.add(parent, token_id)
        assert node == paths.setdefault(path, len(by_node))
        if node == len(by_node):
            by_node.append(path)
        assert builder.token_id(node) == token_id
    tree = builder.build()
    assert len(tree) == len(builder) == len(paths)
    assert [tuple(tree.path_tokens(node)) for node in range(len(tree))] == by_node


def test_equal_tokens_below_different_parents_stay_apart() -> None:
    builder = TreeBuilder(1)
    left, right = builder.add(0, 2), builder.add(0, 3)
    assert builder.add(left, 7) != builder.add(right, 7)
    assert builder.add(0, 2) == left


def test_chain_and_root_are_trees() -> None:
    chain = TokenTree.chain([5, 6, 7])
    assert chain.parents.tolist() == [-1, 0, 1]
    assert chain.depths.tolist() == [0, 1, 2]
    assert (chain.ancestors == np.tri(3, dtype=bool)).all()
    assert len(TokenTree.root(5)) == 1


@pytest.mark.parametrize(
    ("parents", "depths"),
    [([-1, 1, 0], [0, 1, 1]), ([-1, 0, 1], [0, 1, 1]), ([0, 0], [0, 1]), ([-1, 0], [1, 2])],
    ids=["child before parent", "wrong depth", "root with a parent", "root below depth 0"],
)
def test_arrays_that_are_no_tree_are_refused(parents: list[int], depths: list[int]) -> None:
    with pytest.raises(AssertionError):
        TokenTree(np.arange(len(parents)), np.asarray(parents), np.asarray(depths))


@given(tree=trees(vocab_size=8, max_nodes=20), drafter=st.integers(0, 3))
@examples(100)
def test_deterministic_proposals_name_every_node_once_in_drawing_order(tree: TokenTree, drafter: int) -> None:
    proposals = Proposals.deterministic(tree, drafter)
    assert proposals.nodes.tolist() == list(range(1, len(tree)))
    assert set(proposals.contracts) <= {Contract.DETERMINISTIC}
    columns = (proposals.drafters, proposals.contracts, proposals.q_rows)
    assert {len(column) for column in columns} == {len(tree) - 1}
    assert (proposals.drafters == drafter).all()
    assert (proposals.q_rows == -1).all()
    for parent, rows in enumerate(proposals.rows_below):
        assert [proposals.nodes[row] for row in rows] == list(tree.children[parent].values())


def test_no_speculation_is_the_root_alone() -> None:
    proposals = Proposals.none(42)
    assert proposals.tree.token_ids.tolist() == [42]
    assert len(proposals.nodes) == 0
    assert proposals.q_QV is None
