"""What merged drafts are worth: steps, nodes, the best single tree, and intervals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.tests.boosting import NUM_TOKENS, boost_networks, endless_texts
from engine.tests.conftest import TinyModels
from engine.tests.properties import examples
from treespec.tree import TokenTree, TreeBuilder
from treespec.tuning.boost.evaluate import (
    Speculation,
    TargetText,
    best_single,
    expansions_within,
    grown_paths,
    mean_merged_nodes,
    merged_num_nodes,
    num_nodes,
    rate,
    rate_difference,
    target_text,
)
from treespec.tuning.boost.report import compare_held_out, comparison_table
from treespec.tuning.boost.samples import Continuations, token_ranks
from treespec.tuning.evaluate import tokens_per_step


@pytest.fixture(scope="module")
def networks(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.Module]:
    """A target and two drafts."""
    return boost_networks(tiny, tmp_path_factory.mktemp("drafts"))


@pytest.fixture(scope="module")
def texts(networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Continuations:
    """The target's."""
    return endless_texts(networks["target"], tmp_path_factory.mktemp("texts"))


rank_rows = st.lists(st.integers(1, 4), min_size=1, max_size=30)
small_expansions = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)


@given(ranks=rank_rows, other=rank_rows, expansion=small_expansions)
@examples(200)
def test_steps_of_one_draft_are_those_of_its_ranks(
    ranks: list[int], other: list[int], expansion: tuple[int, ...]
) -> None:
    """Texts of different lengths stand in one array; what is behind the shorter one's end, rank 1 too, is not used."""
    ranks_RT = np.ones((2, 30), dtype=np.int64)
    ranks_RT[0, : len(ranks)], ranks_RT[1, : len(other)] = ranks, other
    text = TargetText({"a": ranks_RT}, np.array([len(ranks), len(other)]))
    expected = [tokens_per_step(np.array(row), expansion) for row in (ranks, other)]
    assert Speculation(("a",), expansion).counts(text).tolist() == [list(pair) for pair in expected]
    assert text.pooled_ranks("a").tolist() == ranks + other


def merged_tree(root: int, paths: Sequence[np.ndarray]) -> TokenTree:
    builder = TreeBuilder(root)
    for path in itertools.chain(*paths):
        node = 0
        for token in path.tolist():
            node = builder.add(node, token)
    return builder.build()


@torch.no_grad()
@pytest.mark.parametrize("expansion", [(1,) * 4, (2, 1, 1), (1, 3, 1, 1), (2, 2)], ids=str)
def test_steps_predicted_from_ranks_are_those_of_walking_merged_trees(
    networks: dict[str, nn.Module], texts: Continuations, expansion: tuple[int, ...]
) -> None:
    drafts = ("draft", "other")
    ranks = {name: token_ranks(networks[name], texts) for name in drafts}
    speculation = Speculation(drafts, expansion)
    whole = target_text(ranks, texts, before_loop=False)
    starts_RT, sizes = speculation.steps(whole), []
    for row in range(len(texts)):
        tokens, position, walked = texts.tokens_RT[row].tolist(), 0, []
        while position < NUM_TOKENS:
            walked.append(position)
            context = torch.tensor([[*texts.prompts[row], *tokens[:position]]])
            paths = [grown_paths(networks[name], context, expansion) for name in drafts]
            tree = merged_tree(int(context[0, -1]), [paths_BLX[0] for paths_BLX in paths])
            assert merged_num_nodes(paths) == [len(tree) - 1]
            sizes += [len(tree) - 1] if (len(walked) - 1) % 4 == 0 else []
            node = 0
            while position < NUM_TOKENS and tokens[position] in tree.children[node]:
                node, position = tree.children[node][tokens[position]], position + 1
            position += 1
        assert np.flatnonzero(starts_RT[row]).tolist() == walked
    assert mean_merged_nodes(networks, texts, whole, speculation) == pytest.approx(np.mean(sizes))
    assert num_nodes(expansion) < np.mean(sizes) < speculation.max_nodes


@torch.no_grad()
def test_grown_paths_are_the_drafts_likeliest_without_a_cache(networks: dict[str, nn.Module]) -> None:
    contexts, expansion = torch.tensor([[5, 9, 30], [7, 7, 8]]), (2, 1, 3)
    grown = grown_paths(networks["draft"], contexts, expansion)
    assert grown.shape == (2, 6, 3)
    for context, paths in zip(contexts.tolist(), grown.tolist(), strict=True):
        assert [tuple(path) for path in paths] == likeliest_paths(networks["draft"], context, expansion)


def likeliest_paths(network: nn.Module, context: list[int], expansion: tuple[int, ...]) -> list[tuple[int, ...]]:
    if not expansion:
        return [()]
    logits = network(input_ids=torch.tensor([context])).logits[0, -1]
    tokens = logits.topk(expansion[0]).indices.tolist()
    return [(t, *rest) for t in tokens for rest in likeliest_paths(network, [*context, t], expansion[1:])]


@pytest.mark.parametrize("nodes", range(1, 8))
def test_every_expansion_within_so_many_nodes_is_found_once_unless_a_level_fits_below(nodes: int) -> None:
    depths = range(1, nodes + 1)
    vectors = (v for depth in depths for v in itertools.product(range(1, nodes + 1), repeat=depth) if sum(v) <= nodes)
    brute = sorted(vector for vector in vectors if num_nodes(vector) <= nodes < num_nodes((*vector, 1)))
    assert sorted(expansions_within(nodes)) == brute
    assert num_nodes((2, 2, 1)) == 10 and num_nodes((1, 1, 3, 1, 1, 1, 1, 1)) == 20


def random_text(seed: int, count: int) -> TargetText:
    rng = np.random.default_rng(seed)
    ranks = {name: rng.integers(1, 5, size=(count, 20)) for name in ("a", "b")}
    return TargetText(ranks, rng.integers(5, 21, size=count))


def test_best_single_tree_has_the_most_tokens_per_step() -> None:
    text, expansions = random_text(0, 10), expansions_within(6)
    best = best_single(text, ["a", "b"], expansions)
    rates = {}
    for draft, expansion in itertools.product("ab", expansions):
        rows = [ranks[:length] for ranks, length in zip(text.ranks_RT[draft], text.lengths_R, strict=True)]
        rates[draft, expansion] = text.lengths_R.sum() / sum(tokens_per_step(row, expansion)[1] for row in rows)
    assert rates[best.drafts[0], best.expansion] == max(rates.values())
    assert rate(best.counts(text)) == pytest.approx(max(rates.values()))


def test_interval_of_a_difference_is_of_prompts_in_pairs() -> None:
    text = random_text(1, 40)
    one, other = (Speculation(drafts, (1, 1)).counts(text) for drafts in (("a", "b"), ("a",)))
    same = rate_difference(one, one)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    difference = rate_difference(one, other)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.value == pytest.approx(rate(one) - rate(other))
    # As wide as the spread of the prompts says, not wider: the standard error of paired differences, within a third.
    residuals = [(c[:, 0] - rate(c) * c[:, 1]) / c[:, 1].mean() for c in (one, other)]
    width = 2 * 1.96 * (residuals[0] - residuals[1]).std() / len(one) ** 0.5
    assert (difference.high - difference.low) == pytest.approx(width, rel=0.33)


def test_text_before_a_loop_ends_where_the_loop_begins() -> None:
    tokens = np.array([[*range(3, 13), *range(3, 13)], [*range(30, 50)]])
    texts = Continuations(((1,), (1,)), tokens, np.ones_like(tokens, dtype=bool))
    ranks = {"a": np.arange(40).reshape(2, 20)}
    assert target_text(ranks, texts, before_loop=True).lengths_R.tolist() == [10, 20]
    ended = replace(texts, live_RT=np.arange(20) < np.array([[15], [4]]))
    assert target_text(ranks, ended, before_loop=False).lengths_R.tolist() == [15, 4]
    assert target_text(ranks, ended, before_loop=True).lengths_R.tolist() == [15, 4]


def test_other_merged_drafts_are_a_rival_of_the_same_expansion(
    networks: dict[str, nn.Module], texts: Continuations
) -> None:
    drafts = {name: networks[name] for name in ("draft", "other")}
    for others in ((), ("other",), ("other", "draft")):
        results = compare_held_out(drafts, ["draft", "other"], texts, others, [(1, 1)])
        rows = [row for row in results.comparisons if row.rule == "other drafts"]
        assert [row.part for row in rows] == (["whole", "before loop"] if others else [])
        for row in rows:
            assert row.rival == Speculation(others, (1, 1))
            assert (row.difference.value == row.difference.high == 0) == (len(others) == 2)
        assert f"| {' + '.join(others)} <1,1> |" in comparison_table(results) or not others
