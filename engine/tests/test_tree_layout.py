"""Laws of the layouts: a tree verified as separate sequences is judged as it is as a tree, node for node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.tests.conftest import TinyModels
from engine.tests.decoding import Pair, Serving, build_engine, logits_of, prefill, serve
from engine.tests.jobs import JobFolder
from engine.tests.properties import examples, trees
from engine.tests.scenarios import DRAFTERS, Bench, scenario
from engine.tests.test_law_cache import cached, cached_from_nothing
from engine.tests.test_offload import embedded_job
from treespec.config import Scenario
from treespec.config.drafting import SuffixDrafting
from treespec.request import Request, SamplingParams
from treespec.runner import ForwardRow, ModelRunner
from treespec.serving.passes import comparison_groups
from treespec.serving.request_rows import request_rows
from treespec.tree import Proposals, TokenTree
from treespec.tree.layout import LAYOUTS, LaidTree, node_results, separate_sequences, whole_tree

FIXED = tuple(name for name in DRAFTERS if name != "auto")  # an automatic tree is chosen by what a tree costs
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 40, "seed": 5}
RULES = [
    ("sampler_match", "tree"),
    ("sampler_match", "tree-iid"),
    ("mss", "tree-iid"),
    ("mss", "two-models-drawn"),
    ("recursive_rejection", "tree-without-replacement"),
    ("traversal", "tree-without-replacement"),
    ("token_rejection", "chain-drawn"),
    ("block", "chain-drawn"),
]


def root_paths(tree: TokenTree) -> list[list[int]]:
    """The nodes from the root to every leaf."""
    paths = []
    for leaf in range(len(tree)):
        if not tree.children[leaf]:
            path = [leaf]
            while path[0]:
                path.insert(0, int(tree.parents[path[0]]))
            paths.append(path)
    return paths


@given(tree=trees(8, max_nodes=14))
@examples(100)
def test_separate_sequences_are_the_root_paths(tree: TokenTree) -> None:
    laid, paths = separate_sequences(tree), root_paths(tree)
    assert [row.tolist() for row in laid.rows] == paths
    assert laid.num_tokens == sum(map(len, paths))
    flat = [node for path in paths for node in path]
    assert laid.results.tolist() == [flat.index(node) for node in range(len(tree))], "the first row that holds a node"


@given(tree=trees(8, max_nodes=14), layout=st.sampled_from(sorted(LAYOUTS)))
@examples(100)
def test_every_root_path_lies_whole_in_one_row(tree: TokenTree, layout: str) -> None:
    laid = LAYOUTS[layout](tree)
    flat = [node for row in laid.rows for node in row.tolist()]
    row_of = [number for number, row in enumerate(laid.rows) for _ in row]
    for path in root_paths(tree):
        for length in range(1, len(path) + 1):
            places = laid.places(path[:length])
            assert [flat[place] for place in places] == path[:length]
            assert places == sorted(places) and len({row_of[place] for place in places}) == 1


@given(tree=trees(8, max_nodes=14))
@examples(50)
def test_no_tree_has_more_tokens_on_its_paths_than_its_drafter_says(tree: TokenTree) -> None:
    if len(tree) > 1:
        bound = SuffixDrafting(kind="suffix", num_nodes=len(tree) - 1).max_path_tokens
        assert separate_sequences(tree).num_tokens <= bound


@pytest.mark.parametrize(
    ("drafter", "num_tokens"),
    [
        ({"kind": "ssm", "expansion": [1, 1, 3, 1, 1, 1, 1, 1]}, 3 * 9),
        ({"kind": "ssm", "expansion": [5, 5, 5]}, 125 * 4),
        ({"kind": "ngram", "num_tokens": 4, "width": 2}, 2 * 5),
        # Six nodes: a chain of two with four leaves below, or of three with three.
        ({"kind": "suffix", "num_nodes": 6}, 4 * 4),
        ({"kind": "ssm", "tree": "best", "num_nodes": 6, "max_depth": 2}, 5 * 3),
    ],
)
def test_slots_of_separate_sequences_are_the_tokens_of_all_paths(drafter: dict[str, Any], num_tokens: int) -> None:
    data = {"name": "a", "mode": "tree", "drafters": [drafter], "prompts": "p.json", "max_requests_per_batch": 1}
    tree = Scenario.model_validate(data)
    assert tree.num_target_slots == tree.num_tree_nodes
    assert Scenario.model_validate(data | {"tree_layout": "sequences"}).num_target_slots == num_tokens


@given(data=st.data(), variant=st.sampled_from(["gqa", "narrow-heads"]), layout=st.sampled_from(sorted(LAYOUTS)))
@examples(15)
def test_logits_of_every_node_and_the_cache_of_every_path_equal_the_path_run_alone(
    tiny: TinyModels, data: st.DataObject, variant: str, layout: str
) -> None:
    """Trees below cached context and below the end of a chunk of a prompt, several requests in a pass."""
    decoder = tiny.pair(variant).target.decoder
    tokens = st.integers(3, decoder.spec.vocab_size - 1)
    contexts = data.draw(st.lists(st.lists(tokens, min_size=2, max_size=12), min_size=1, max_size=3))
    num_certain = [data.draw(st.integers(0, len(context) - 1)) for context in contexts]
    forest = [data.draw(trees(decoder.spec.vocab_size, max_nodes=9)) for _ in contexts]
    runner = ModelRunner(decoder, len(contexts), 100)
    laid = [LAYOUTS[layout](tree) for tree in forest]
    logits = laid_logits(runner, contexts, num_certain, laid)
    for region, (context, tree, logits_NV) in enumerate(zip(contexts, forest, logits, strict=True)):
        for node in range(len(tree)):
            alone = logits_of(decoder, [*context, *tree.path_tokens(node)])[-1]
            torch.testing.assert_close(logits_NV[node], alone, rtol=0, atol=1e-5)
        path = data.draw(st.sampled_from(root_paths(tree)))
        path = path[: data.draw(st.integers(1, len(path)))]
        certain = num_certain[region]
        kept = [*range(certain), *(certain + place for place in laid[region].places(path))]
        runner.commit([(region, kept)])
        fresh = cached_from_nothing(decoder, [*context, *tree.path_tokens(path[-1])])
        torch.testing.assert_close(cached(runner, region), fresh, rtol=0, atol=1e-5)


def laid_logits(
    runner: ModelRunner, contexts: Sequence[Sequence[int]], num_certain: Sequence[int], laid: Sequence[LaidTree]
) -> list[Tensor]:
    """One pass over all trees; of each context the last ``num_certain`` tokens are not cached before it."""
    rows: list[ForwardRow] = []
    for context, certain, item in zip(contexts, num_certain, laid, strict=True):
        region, _ = prefill(runner, context[: len(context) - certain])
        # The root is the request's last token.
        prompt = (*context, int(item.tree.token_ids[0]))
        request = Request(0, prompt, SamplingParams(1, 100), num_cached=len(context) - certain)
        rows += request_rows(request, certain, item, runner.allocator, region)
    results = runner.result(runner.submit(rows)).logits_RV[torch.from_numpy(node_results(laid))]
    return list(results.split([len(item.tree) for item in laid]))


def test_a_run_of_several_rows_of_a_request_can_be_cancelled(gqa: Pair) -> None:
    runner = ModelRunner(gqa.target.decoder, 1, 64)
    region, _ = prefill(runner, gqa.prompts[0])
    laid = LaidTree(TokenTree.root(5), (np.zeros(1, dtype=np.int64),) * 2)
    request = Request(0, (*gqa.prompts[0], 5), SamplingParams(1, 64), num_cached=len(gqa.prompts[0]))
    runner.cancel(runner.submit(request_rows(request, 0, laid, runner.allocator, region)))
    assert runner.allocator.lease(region, 1).start == 0, "nothing is leased"


@pytest.fixture(scope="module")
def bench(tiny: TinyModels) -> Bench:
    scenarios = [scenario(name, name) for name in FIXED]
    scenarios += [scenario(f"{rule}-{name}", name, verifier=rule, sampling=SAMPLED) for rule, name in RULES]
    scenarios += [item | {"name": f"{item['name']}-sequences", "tree_layout": "sequences"} for item in scenarios]
    return Bench.of(tiny.pair("gqa"), scenarios)


@pytest.mark.parametrize("drafters", ["chain", "tree", "best", "portfolio"])
def test_greedy_text_is_incremental_decodings(bench: Bench, gqa: Pair, drafters: str) -> None:
    name, prompts = f"{drafters}-sequences", gqa.prompts
    assert bench.token_ids(name, prompts[:3], max_requests_per_batch=1) == gqa.expected(20)[:3]
    assert bench.token_ids(name, prompts, max_tokens_per_batch=5) == gqa.expected(20), "prompts in chunks"
    assert bench.token_ids(name, prompts, max_new_tokens=3) == gqa.expected(3), "ends inside a path"


# What the best tree is, a rule learns over all passes of its scenario.
@pytest.mark.parametrize("drafters", [name for name in FIXED if name != "best"])
def test_greedy_steps_are_those_of_the_tree(bench: Bench, gqa: Pair, drafters: str) -> None:
    tree, sequences = (bench.serve(name, gqa.prompts) for name in (drafters, f"{drafters}-sequences"))
    assert [request.output_token_ids for request in sequences.requests] == gqa.expected(20)
    for one, other in zip(tree.profiles, sequences.profiles, strict=True):
        assert other.accepted_per_step == one.accepted_per_step
        assert other.num_draft_tokens == one.num_draft_tokens, "nodes, however often they are computed"
        assert other.num_target_steps == one.num_target_steps
        assert (other.offered, other.accepted) == (one.offered, one.accepted)


@pytest.mark.parametrize(("rule", "drafters"), RULES)
def test_sampled_text_is_that_of_the_tree(bench: Bench, gqa: Pair, rule: str, drafters: str) -> None:
    name = f"{rule}-{drafters}"
    expected = bench.token_ids(name, gqa.prompts)
    assert expected != gqa.expected(20)
    assert bench.token_ids(f"{name}-sequences", gqa.prompts) == expected
    chunked = {"max_requests_per_batch": 2, "max_tokens_per_batch": 6}
    assert bench.token_ids(f"{name}-sequences", gqa.prompts, **chunked) == expected


def test_an_end_of_sequence_inside_a_path_ends_the_text(gqa: Pair) -> None:
    ends = tuple({text.continuation[5] for text in gqa.texts})
    serving = Serving((2, 2, 1), ignore_eos=False, eos_token_ids=ends)
    tree = serve(gqa.target, gqa.draft, gqa.prompts, serving)
    sequences = serve(gqa.target, gqa.draft, gqa.prompts, serving.with_(layout=separate_sequences))
    assert sequences.token_ids == tree.token_ids and sequences.reasons == tree.reasons
    assert all(len(tokens) < 20 for tokens in sequences.token_ids)


def test_a_streamed_and_quantised_target_verifies_sequences_too(job: JobFolder) -> None:
    embedded_job(job, "llama")
    job.placement |= {"offload": "host", "offload_reserve_mib": 3}
    job.placement["target"]["quantisation"] = {"bits": 8, "group_size": 32}
    job.scenarios[2]["tree_layout"] = "sequences"
    assert job.run() == 0
    plain, _, sequences = ([row["output_token_ids"] for row in job.rows(name)] for name in job.names)
    assert sequences == plain
    assert job.meta(job.names[2])["repeats"][0]["offload"]["num_units"] > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_the_target_computed_are_counted(gqa: Pair, layout: str) -> None:
    bench = build_engine(gqa.target, gqa.draft, Serving((2, 2, 1), layout=LAYOUTS[layout]))
    expected = 0

    def watch(requests: Sequence[Request], proposals: Sequence[Proposals], *_: object) -> None:
        nonlocal expected
        expected += sum(LAYOUTS[layout](item.tree).num_tokens for item in proposals)

    bench.engine._on_verified = watch
    bench.engine.add([Serving().request(index, prompt) for index, prompt in enumerate(gqa.prompts)])
    totals = bench.engine.run()
    num_prompt_tokens = sum(len(prompt) - 1 for prompt in gqa.prompts)
    assert totals.num_target_rows == expected + num_prompt_tokens


def test_records_hold_the_layout_and_the_rows_it_took(job: JobFolder) -> None:
    (tree,) = (item for item in job.scenarios if item["mode"] == "tree")
    job.scenarios = [tree, tree | {"name": "as-sequences", "tree_layout": "sequences"}]
    assert job.run() == 0
    one, other = (job.meta(name) for name in job.names)
    assert one["config"]["scenario"]["tree_layout"] == "tree"
    assert other["config"]["scenario"]["tree_layout"] == "sequences"
    for repeat, repeated in zip(one["repeats"], other["repeats"], strict=True):
        assert repeated["num_target_rows"] > repeat["num_target_rows"] > repeat["num_output_tokens"]
        assert repeated["num_target_steps"] == repeat["num_target_steps"]
    same = ("output_token_ids", "accepted_per_step", "num_draft_tokens", "num_target_steps")
    first, second = ([[row[key] for key in same] for row in job.rows(name)] for name in job.names)
    assert first == second


def test_layouts_of_a_tree_take_turns() -> None:
    data = scenario("tree", "tree", prompts="p.json")
    scenarios = [Scenario.model_validate(data | changes) for changes in ({}, {"name": "b", "tree_layout": "sequences"})]
    assert comparison_groups(scenarios) == [scenarios]


def test_a_whole_tree_is_one_row_in_its_own_order() -> None:
    laid = whole_tree(TokenTree.chain([3, 4, 5]))
    assert [row.tolist() for row in laid.rows] == [[0, 1, 2]]
    assert node_results([laid, laid]).tolist() == [0, 1, 2, 3, 4, 5]
