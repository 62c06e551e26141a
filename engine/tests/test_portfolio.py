"""Several drafters' trees in one: what merging keeps, and what each drafter is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.decoding import Serving
from engine.tests.properties import examples
from treespec.draft.portfolio import PortfolioDrafter
from treespec.request import Request
from treespec.tree import Contract, Proposals, TokenTree, TreeBuilder
from treespec.tree.merge import merge

Path = tuple[int, ...]
ROOT, VOCAB_SIZE = 9, 4


@st.composite
def drafts(draw: st.DrawFn) -> Proposals:
    """A tree below ROOT whose nodes were proposed once or several times, of one contract."""
    contract = draw(st.sampled_from(Contract))
    builder = TreeBuilder(ROOT)
    nodes = [
        builder.add(draw(st.integers(0, len(builder) - 1)), draw(st.integers(0, VOCAB_SIZE - 1)))
        for _ in range(draw(st.integers(0, 8)))
    ]
    is_drawn = contract is not Contract.DETERMINISTIC
    rows = [draw(st.integers(0, 2)) if is_drawn else -1 for _ in nodes]
    q = torch.tensor(draw(st.lists(st.floats(0, 1), min_size=3 * VOCAB_SIZE, max_size=3 * VOCAB_SIZE)))
    return Proposals(
        tree=builder.build(),
        nodes=np.asarray(nodes, dtype=np.int64),
        contracts=(contract,) * len(nodes),
        drafters=np.zeros(len(nodes), dtype=np.int64),
        q_rows=np.asarray(rows, dtype=np.int64),
        q_QV=q.view(3, VOCAB_SIZE) if is_drawn and nodes else None,
    )


def chain(*tokens: int) -> Proposals:
    return Proposals.deterministic(TokenTree.chain([ROOT, *tokens]))


def root_paths(tree: TokenTree) -> list[Path]:
    return [tuple(tree.path_tokens(node)) for node in range(len(tree))]


def joined(sources: Sequence[Proposals]) -> torch.Tensor | None:
    parts = [source.q_QV for source in sources if source.q_QV is not None]
    return torch.cat(parts) if parts else None


def rows(proposals: Proposals, drafter: int | None = None) -> list[tuple[Path, Path, Contract, int, list[float]]]:
    """Every draw in words: parent, node, contract, drafter, the distribution it came from."""
    paths, parents = root_paths(proposals.tree), proposals.tree.parents
    return [
        (
            paths[parents[node]],
            paths[node],
            proposals.contracts[row],
            int(proposals.drafters[row]) if drafter is None else drafter,
            proposals.q_QV[q_row].tolist() if q_row >= 0 and proposals.q_QV is not None else [],
        )
        for row, (node, q_row) in enumerate(zip(proposals.nodes.tolist(), proposals.q_rows.tolist(), strict=True))
    ]


# Merging

many = st.lists(drafts(), min_size=1, max_size=4)


@given(sources=many)
@examples(150)
def test_merged_sequences_are_the_union(sources: list[Proposals]) -> None:
    """SpecInfer, definition 3.2."""
    merged = merge(sources, joined(sources))
    paths = root_paths(merged.proposals.tree)
    assert len(set(paths)) == len(paths)
    assert set(paths) == {path for source in sources for path in root_paths(source.tree)}
    for source, node_map in zip(sources, merged.node_maps, strict=True):
        assert [paths[node] for node in node_map] == root_paths(source.tree)


@given(sources=many)
@examples(150)
def test_every_draw_is_kept_in_order(sources: list[Proposals]) -> None:
    merged = merge(sources, joined(sources)).proposals
    everything = [row for place, source in enumerate(sources) for row in rows(source, place)]
    found = rows(merged)
    for parent, below in zip(root_paths(merged.tree), merged.rows_below, strict=True):
        assert [found[row] for row in below] == [row for row in everything if row[0] == parent]
    assert len(found) == len(everything)


@given(source=drafts())
@examples(50)
def test_merging_one_tree_changes_nothing(source: Proposals) -> None:
    merged = merge([source], source.q_QV).proposals
    for name in ("token_ids", "parents", "depths"):
        assert getattr(merged.tree, name).tolist() == getattr(source.tree, name).tolist()
    for name in ("nodes", "drafters", "q_rows"):
        assert getattr(merged, name).tolist() == getattr(source, name).tolist()
        assert getattr(merged, name).dtype == np.int64
    assert merged.contracts == source.contracts
    assert merged.q_QV is source.q_QV


def test_equal_tokens_of_equal_depth_below_different_parents_stay_apart() -> None:
    merged = merge([chain(1, 3), chain(2, 3)]).proposals
    assert Counter(merged.tree.token_ids.tolist()) == {ROOT: 1, 1: 1, 2: 1, 3: 2}
    assert set(root_paths(merged.tree)) == {(ROOT,), (ROOT, 1), (ROOT, 2), (ROOT, 1, 3), (ROOT, 2, 3)}


def test_a_token_proposed_by_several_is_one_node_and_several_draws() -> None:
    merged = merge([chain(1, 2), chain(1), chain(1, 3)]).proposals
    assert len(merged.tree) == 4
    assert merged.drafters[merged.rows_below[0]].tolist() == [0, 1, 2]
    assert merged.drafters[merged.rows_below[1]].tolist() == [0, 2]


def test_trees_of_different_roots_are_not_merged() -> None:
    with pytest.raises(AssertionError, match="one root"):
        merge([chain(1), Proposals.none(ROOT + 1)])


@given(sources=many, data=st.data())
@examples(100)
def test_accepted_path_is_a_prefix_path_in_every_tree(sources: list[Proposals], data: st.DataObject) -> None:
    merged = merge(sources, joined(sources))
    tree = merged.proposals.tree
    path = np.flatnonzero(tree.ancestors[data.draw(st.integers(0, len(tree) - 1))])[1:].tolist()
    for place, source in enumerate(sources):
        own = merged.own_path(place, path)
        tokens = [int(source.tree.token_ids[node]) for node in own]
        assert tokens == tree.token_ids[path[: len(own)]].tolist()
        assert source.tree.parents[own].tolist() == [0, *own][: len(own)]
        if len(own) < len(path):
            assert int(tree.token_ids[path[len(own)]]) not in source.tree.children[([0, *own])[-1]]


# The portfolio


class ScriptedDrafter:
    """Proposes what it was given, request by request, and remembers what it is told."""

    def __init__(self, *script: Proposals) -> None:
        self.script = script
        self.max_depths: list[int] = []
        self.observed: list[tuple[list[int], list[list[int]]]] = []
        self.forgotten: list[int] = []

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        self.max_depths = list(max_depths)
        return [self.script[request.request_id] for request in requests]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        self.observed.append(([request.request_id for request in requests], [list(nodes) for nodes in accepted]))

    def forget(self, request: Request) -> None:
        self.forgotten.append(request.request_id)


def requests(count: int) -> list[Request]:
    return [Serving().request(number, [ROOT]) for number in range(count)]


def test_every_drafter_is_told_what_was_accepted_of_its_own_tree() -> None:
    first = ScriptedDrafter(chain(1, 2), chain(5), chain(1))
    second = ScriptedDrafter(chain(3, 4), chain(5, 6), chain(2))
    portfolio = PortfolioDrafter([first, second])
    items = requests(3)
    proposals = portfolio.propose(items, [7, 8, 9])
    assert first.max_depths == second.max_depths == [7, 8, 9]
    paths = [(3, 4), (5, 6), ()]
    accepted = [nodes_of(item.tree, path) for item, path in zip(proposals, paths, strict=True)]
    portfolio.observe(items, accepted)
    assert first.observed == [([0, 1, 2], [[], [1], []])]
    assert second.observed == [([0, 1, 2], [[1, 2], [1, 2], []])]


def nodes_of(tree: TokenTree, tokens: Sequence[int]) -> list[int]:
    nodes = [0]
    for token in tokens:
        nodes.append(tree.children[nodes[-1]][token])
    return nodes[1:]


def test_requests_that_ended_are_forgotten_by_all() -> None:
    drafters = [ScriptedDrafter(chain(1), chain(2)), ScriptedDrafter(chain(3), chain(4))]
    portfolio = PortfolioDrafter(drafters)
    ended, going_on = requests(2)
    proposals = portfolio.propose([ended, going_on], [4, 4])
    portfolio.forget(ended)
    portfolio.observe([going_on], [nodes_of(proposals[1].tree, [4])])
    assert [drafter.forgotten for drafter in drafters] == [[0], [0]]
    assert [drafter.observed for drafter in drafters] == [[([1], [[]])], [([1], [[1]])]]
    assert not portfolio._proposed


@given(sources=many)
@examples(50)
def test_portfolio_proposes_the_merged_trees_with_their_distributions(sources: list[Proposals]) -> None:
    (proposals,) = PortfolioDrafter([ScriptedDrafter(source) for source in sources]).propose(requests(1), [8])
    assert rows(proposals) == [row for place, source in enumerate(sources) for row in rows(source, place)]
    assert set(root_paths(proposals.tree)) == {path for source in sources for path in root_paths(source.tree)}


def test_portfolio_of_drafters_that_find_nothing_is_the_root() -> None:
    nothing = Proposals.none(ROOT)
    (proposals,) = PortfolioDrafter([ScriptedDrafter(nothing), ScriptedDrafter(nothing)]).propose(requests(1), [8])
    assert len(proposals.tree) == 1
    assert proposals.tree.token_ids.tolist() == [ROOT]


def test_tree_larger_than_allowed_is_our_own_mistake() -> None:
    drafters = [ScriptedDrafter(chain(1, 2)), ScriptedDrafter(chain(1, 3))]
    assert len(PortfolioDrafter(drafters, max_nodes=3).propose(requests(1), [8])[0].tree) == 4
    with pytest.raises(AssertionError, match="validated"):
        PortfolioDrafter(drafters, max_nodes=2).propose(requests(1), [8])
