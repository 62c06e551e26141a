"""The best trees: as good as the dynamic programme's, whatever the acceptance; and trees grown by confidence."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples
from treespec.draft.dynamic import DynamicGrowth
from treespec.tree import Contract, Topology
from treespec.tree.search import best_topologies, best_topology

probabilities = st.floats(0, 1, allow_subnormal=False)
tables = st.lists(st.lists(probabilities, min_size=1, max_size=4), min_size=1, max_size=4)
falling = tables.map(lambda table: [sorted(row, reverse=True) for row in table])


def value_of(topology: Topology, acceptance: list[list[float]]) -> float:
    """Expected tokens per step: the paths' products, summed."""
    values = [1.0]
    rank = {child: k for children in topology.children for k, child in enumerate(children)}
    for node, parent in enumerate(topology.parents[1:], start=1):
        row = acceptance[min(int(topology.depths[parent]), len(acceptance) - 1)]
        values.append(values[parent] * row[rank[node]])
    return sum(values)


def optimum(acceptance: list[list[float]], num_nodes: int, max_depth: int) -> float:
    """The dynamic programme: children of a node in order, each with a subtree of any size (Sequoia, section 3.1)."""

    @cache
    def tree(depth: int, nodes: int) -> float:
        return 1 + forest(depth, 0, nodes - 1)

    @cache
    def forest(depth: int, rank: int, nodes: int) -> float:
        row = acceptance[min(depth, len(acceptance) - 1)]
        if depth == max_depth or rank == len(row) or nodes == 0:
            return 0.0
        return max(
            row[rank] * tree(depth + 1, below) + forest(depth, rank + 1, nodes - below) for below in range(1, nodes + 1)
        )

    return max(tree(0, n) for n in range(1, num_nodes + 1))


@given(acceptance=falling, num_nodes=st.integers(1, 12), max_depth=st.integers(0, 5))
@examples(300)
def test_the_heap_finds_what_the_dynamic_programme_finds(
    acceptance: list[list[float]], num_nodes: int, max_depth: int
) -> None:
    nested = best_topologies(acceptance, num_nodes, max_depth)
    for n in range(1, len(nested) + 1):
        topology = nested.topology(n)
        assert len(topology) == n and topology.depth <= max_depth
        assert nested.expected_tokens[n - 1] == pytest.approx(optimum(acceptance, n, max_depth), abs=1e-12)
        assert nested.expected_tokens[n - 1] == pytest.approx(value_of(topology, acceptance), abs=1e-12)


@given(acceptance=tables, num_nodes=st.integers(1, 40), max_depth=st.integers(0, 6))
@examples(200)
def test_more_nodes_never_emit_less_and_rows_that_rise_are_taken_at_their_running_minimum(
    acceptance: list[list[float]], num_nodes: int, max_depth: int
) -> None:
    nested = best_topologies(acceptance, num_nodes, max_depth)
    gains = np.diff(nested.expected_tokens)
    assert (gains >= 0).all() and all(a >= b - 1e-12 for a, b in pairwise(gains))
    lowered = [np.minimum.accumulate(row).tolist() for row in acceptance]
    assert best_topologies(lowered, num_nodes, max_depth) == nested
    assert nested.topology(len(nested)) == best_topology(acceptance, num_nodes, max_depth)


def test_known_trees() -> None:
    assert best_topology([[0.9, 0.05]], 4, 8).parents == (-1, 0, 1, 2)  # a chain
    assert best_topology([[0.4, 0.3, 0.2]], 4, 8).parents == (-1, 0, 0, 0)  # siblings
    assert best_topology([[0.5, 0.4], [0.9, 0.1]], 4, 8).parents == (-1, 0, 1, 2)  # 0.5, 0.45, 0.405 before 0.4
    assert best_topology([[0.5, 0.4], [0.1, 0.1]], 4, 8).parents == (-1, 0, 0, 1)
    assert len(best_topology([[0.9]], 10, 3)) == 4, "no more than the widths and depths allow"
    assert len(best_topology([[0.9]], 10, 0)) == 1


@given(acceptance=falling, max_nodes=st.integers(1, 24), max_depth=st.integers(0, 5))
@examples(100)
def test_a_draft_runs_the_nodes_that_have_children(
    acceptance: list[list[float]], max_nodes: int, max_depth: int
) -> None:
    nested = best_topologies(acceptance, max_nodes, max_depth)
    for n in range(1, len(nested) + 1):
        topology = nested.topology(n)
        parents = [node for node in range(n) if topology.children[node]]
        expected = np.bincount(topology.depths[parents], minlength=nested.level_rows.shape[1])
        assert nested.level_rows[n - 1].tolist() == expected.tolist()


# Trees grown by confidence: a draft whose distribution after a path is a function of the path.

Path = tuple[int, ...]
WIDTH, VOCABULARY = 3, 6


def log_q(seed: int, path: Path) -> np.ndarray:
    logits = np.random.default_rng([seed, *path]).normal(scale=2.0, size=VOCABULARY)
    return logits - np.log(np.exp(logits).sum())


def grown(seed: int, num_nodes: int, max_depth: int, width: int) -> DynamicGrowth:
    growth = DynamicGrowth(9, num_nodes, max_depth, width)
    while growth.frontier:
        assert len(growth.frontier) <= width and growth.widths() == [width] * len(growth.frontier)
        scores = [log_q(seed, path_of(growth, node)) for node in growth.frontier]
        tokens = [np.argsort(-row)[:width].tolist() for row in scores]
        chosen = [row[ids].tolist() for row, ids in zip(scores, tokens, strict=True)]
        growth.expand(tokens, Contract.DETERMINISTIC, [-1] * len(tokens), chosen)
    return growth


def path_of(growth: DynamicGrowth, node: int) -> Path:
    path: list[int] = []
    while node > 0:
        path.append(growth.token_id(node))
        node = growth.parent(node)
    return tuple(path[::-1])


def eagle_paths(seed: int, num_nodes: int, max_depth: int, width: int) -> set[Path]:
    """Expand the ``width`` best of every level, then keep the best of all: without any early stop."""
    level, everything = {(): 0.0}, {(): 0.0}
    for _ in range(max_depth):
        best = sorted(level, key=lambda path: -level[path])[:width]
        level = {}
        for path in best:
            row = log_q(seed, path)
            level |= {(*path, int(t)): everything[path] + float(row[t]) for t in np.argsort(-row)[:width]}
        everything |= level
    return set(sorted(everything, key=lambda path: -everything[path])[:num_nodes])


@given(
    seed=st.integers(0, 10_000), num_nodes=st.integers(1, 30), max_depth=st.integers(0, 5), width=st.integers(1, WIDTH)
)
@examples(200)
def test_a_dynamic_tree_holds_the_most_probable_nodes_of_all_levels(
    seed: int, num_nodes: int, max_depth: int, width: int
) -> None:
    growth = grown(seed, num_nodes, max_depth, width)
    tree = growth.build(None).tree
    expected = eagle_paths(seed, num_nodes, max_depth, width)
    assert {tuple(tree.path_tokens(node)[1:]) for node in range(len(tree))} == expected
    for node in range(len(tree)):
        assert path_of(growth, growth.origin(node)) == tuple(tree.path_tokens(node)[1:])


def test_no_level_is_drafted_that_could_not_be_kept() -> None:
    growth = DynamicGrowth(9, num_nodes=3, max_depth=8, width=2)
    growth.expand([[1, 2]], Contract.DETERMINISTIC, [-1], [[np.log(0.5), np.log(0.45)]])
    assert growth.frontier == [1], "a child of node 2 could be at best the fourth"
    growth.expand([[1, 2]], Contract.DETERMINISTIC, [-1], [[np.log(0.6), np.log(0.4)]])
    assert growth.frontier == []
    assert growth.build(None).tree.parents.tolist() == [-1, 0, 0]


def test_a_certain_child_does_not_outrank_its_parent() -> None:
    growth = DynamicGrowth(9, num_nodes=3, max_depth=4, width=1)
    for token in (5, 6):
        growth.expand([[token]], Contract.DETERMINISTIC, [-1], [[0.0]])
    assert growth.frontier == [] and growth.depth == 2
    assert growth.build(None).tree.token_ids.tolist() == [9, 5, 6]


@pytest.mark.parametrize("contract", [Contract.IID, Contract.WITHOUT_REPLACEMENT])
def test_drawn_children_are_not_pruned(contract: Contract) -> None:
    growth = DynamicGrowth(9, num_nodes=3, max_depth=4, width=1)
    with pytest.raises(AssertionError, match="not lossless"):
        growth.expand([[5]], contract, [0], [[-0.1]])
