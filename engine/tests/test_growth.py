"""Topologies, the trees that fill them, and how children are chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples, expansions, num_tree_nodes
from treespec.chance import Chance
from treespec.config import Sampling
from treespec.draft.growth import TreeGrowth
from treespec.draft.selection import SELECTIONS, Leaves, Selected
from treespec.ops.draws import DraftDraws
from treespec.ops.sampling import distributions
from treespec.tree import Contract, Topology

V = 6


@given(expansion=expansions())
@examples(100)
def test_an_expansion_gives_every_leaf_its_children(expansion: tuple[int, ...]) -> None:
    topology = Topology.from_expansion(expansion)
    assert len(topology) == num_tree_nodes(expansion)
    assert topology.depth == len(expansion)
    for node, children in enumerate(topology.children):
        depth = int(topology.depths[node])
        assert len(children) == (expansion[depth] if depth < len(expansion) else 0)
    assert topology.is_chain == (set(expansion) == {1})


def grown(topology: Topology, choose: list[list[list[int]]], max_depth: int = 9) -> TreeGrowth:
    growth = TreeGrowth(0, topology, max_depth)
    for tokens in choose:
        growth.expand(tokens, Contract.IID, list(range(len(tokens))))
    return growth


def test_a_token_drawn_twice_is_one_node_and_two_proposals() -> None:
    growth = grown(Topology.from_expansion([3, 1]), [[[4, 5, 4]]])
    assert growth.frontier == [1, 2] and growth.widths() == [1, 1]
    growth.expand([[1], [1]], Contract.IID, [1, 2])
    proposals = growth.build(None)
    assert proposals.tree.token_ids.tolist() == [0, 4, 5, 1, 1]
    assert proposals.nodes.tolist() == [1, 2, 1, 3, 4]
    assert proposals.rows_below == [[0, 1, 2], [3], [4], [], []]
    assert proposals.q_rows.tolist() == [0, 0, 0, 1, 2]


def test_children_beyond_what_was_drawn_stay_away() -> None:
    growth = grown(Topology.from_expansion([3, 1]), [[[4]]])
    assert growth.frontier == [1]
    assert len(growth.build(None).tree) == 2


def test_uneven_topologies_give_each_place_its_own_children() -> None:
    topology = Topology((-1, 0, 0, 1, 1, 3))  # two children; the first has two, of which the first has one
    growth = grown(topology, [[[7, 8]]])
    assert growth.frontier == [1] and growth.widths() == [2]
    growth.expand([[5, 6]], Contract.DETERMINISTIC, [-1])
    assert growth.frontier == [3] and growth.depth == 2
    growth.expand([[9]], Contract.DETERMINISTIC, [-1])
    assert growth.frontier == []
    assert growth.build(None).tree.path_tokens(5) == [0, 7, 5, 9]


@pytest.mark.parametrize("max_depth", range(4))
def test_growth_ends_at_the_depth_that_is_wanted(max_depth: int) -> None:
    growth = TreeGrowth(0, Topology.from_expansion([1, 1, 1]), max_depth)
    while growth.frontier:
        growth.expand([[3]], Contract.DETERMINISTIC, [-1])
    assert growth.build(None).tree.depths.tolist() == list(range(max_depth + 1))


def select(name: str, logits: torch.Tensor, widths: list[int], sampling: Sampling, seed: int = 0) -> Selected:
    n = len(widths)
    leaves = Leaves(range(n), widths, [1] * n, [sampling] * n)
    return SELECTIONS[name].select(logits, leaves, DraftDraws([Chance(seed, item) for item in range(n)], [0] * n))


@given(seed=st.integers(0, 1000), widths=st.lists(st.integers(1, V + 2), min_size=1, max_size=4))
@examples(60)
def test_without_replacement_every_child_is_another_token_that_q_allows(seed: int, widths: list[int]) -> None:
    logits = torch.randn(len(widths), V, generator=torch.Generator().manual_seed(seed))
    sampling = Sampling(temperature=0.9, top_k=4)
    selected = select("without_replacement", logits, widths, sampling, seed)
    q = distributions(logits, [sampling] * len(widths))
    assert selected.q_RV is not None and torch.equal(selected.q_RV, q), "what is reported is what was drawn from"
    for row, (tokens, width) in enumerate(zip(selected.tokens, widths, strict=True)):
        assert len(tokens) == len(set(tokens)) == min(width, int((q[row] > 0).sum()))
        assert all(q[row, token] > 0 for token in tokens)


def test_independent_draws_may_repeat_and_report_what_they_came_from() -> None:
    logits, sampling = torch.zeros(1, V), Sampling(temperature=1.0, top_k=None)
    tokens = select("iid", logits, [40], sampling)
    assert len(tokens.tokens[0]) == 40 and set(tokens.tokens[0]) == set(range(V))
    assert tokens.q_RV is not None and tokens.q_RV.tolist() == [pytest.approx([1 / V] * V)]


def test_the_likeliest_come_first_each_row_its_own_number() -> None:
    logits = torch.tensor([[0.0, 3, 1, 2], [5, 0, 0, 1]])
    selected = select("top_k", logits, [3, 1], Sampling(temperature=1.0))
    assert selected.tokens == [[1, 3, 2], [0]] and selected.q_RV is None
    assert select("top_k", logits, [9, 9], Sampling()).tokens[0] == [1, 3, 2, 0]
