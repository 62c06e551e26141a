"""Laws: the cache after commit equals a fresh prefill, and a tree's logits equal each root path run alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.tests.checkpoints import VARIANTS
from engine.tests.conftest import TinyModels
from engine.tests.decoding import (
    PAPER_TREE,
    WIDE_TREE,
    Pair,
    Serving,
    build_engine,
    chain_row,
    load,
    logits_of,
    prefill,
)
from engine.tests.properties import examples, trees
from treespec.draft.ssm import SsmDrafter
from treespec.model.decoder import Decoder
from treespec.model.loader import LoadedModel
from treespec.runner import ForwardRow, ModelRunner
from treespec.tree import TokenTree
from treespec.tree.layout import LAYOUTS, Layout, whole_tree

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def cached(runner: ModelRunner, region: int) -> Tensor:
    """Keys and values of a region's context ``[2, L, T, G, D]``."""
    start = region * runner.allocator.region_capacity
    return runner.pool.kv_2LSGD[:, :, start : start + runner.allocator.context_length(region)]


def cached_from_nothing(decoder: Decoder, token_ids: Sequence[int]) -> Tensor:
    runner = ModelRunner(decoder, 1, len(token_ids))
    return cached(runner, prefill(runner, token_ids)[0])


def assert_caches_are_fresh(
    target: LoadedModel, draft: LoadedModel, prompts: list[tuple[int, ...]], layout: Layout
) -> int:
    """Serve step by step; after each, compare every cache in use. Returns the number of comparisons."""
    tolerance = TOLERANCES[target.decoder.dtype]
    num_compared = 0
    for expansion in ((1,) * 4, WIDE_TREE, PAPER_TREE):
        bench = build_engine(target, draft, Serving(expansion, max_tokens_per_batch=16, layout=layout))
        assert isinstance(bench.drafter, SsmDrafter)
        assert bench.draft_runner is not None
        requests = [Serving(max_new_tokens=12).request(index, prompt) for index, prompt in enumerate(prompts)]
        bench.engine.add(requests)
        while bench.engine._scheduler.has_work:
            bench.engine.step()
            for request_id, region in bench.engine._regions.items():
                request, num_cached = requests[request_id], bench.target_runner.allocator.context_length(region)
                assert request.num_cached == num_cached
                if request.output_token_ids:
                    assert num_cached == request.num_tokens - 1, "all but the last token are cached"
            regions = [
                (target, bench.target_runner, bench.engine._regions),
                (draft, bench.draft_runner, {key: state.region for key, state in bench.drafter._states.items()}),
            ]
            for model, runner, owners in regions:
                for request_id, region in owners.items():
                    found = cached(runner, region)
                    tokens = requests[request_id].tokens_from(0)[: found.shape[2]]
                    if tokens:
                        fresh = cached_from_nothing(model.decoder, tokens)
                        torch.testing.assert_close(found, fresh, rtol=0, atol=tolerance)
                        num_compared += 1
    return num_compared


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", ["gqa", "narrow-heads"])
def test_cache_after_every_commit_equals_a_fresh_prefill(
    tiny: TinyModels, variant: str, layout: str, dtype: torch.dtype
) -> None:
    target, draft = load(tiny.target(variant), dtype), load(tiny.draft(variant), dtype)
    assert assert_caches_are_fresh(target, draft, tiny.pair(variant).prompts[:4], LAYOUTS[layout]) > 50


def test_cache_of_the_embedded_pair_equals_a_fresh_prefill(embedded: Pair) -> None:
    assert assert_caches_are_fresh(embedded.target, embedded.draft, embedded.prompts[:3], whole_tree) > 50


@DTYPES
@given(data=st.data(), variant=st.sampled_from(sorted(VARIANTS)))
@examples(25)
def test_tree_logits_equal_every_root_path_run_alone(
    tiny: TinyModels, data: st.DataObject, variant: str, dtype: torch.dtype
) -> None:
    decoder = load(tiny.target(variant), dtype).decoder
    tokens = st.integers(3, decoder.spec.vocab_size - 1)
    contexts = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=20), min_size=1, max_size=4))
    forest = [data.draw(trees(decoder.spec.vocab_size)) for _ in contexts]
    logits = forest_logits(decoder, contexts, forest)
    for context, tree, logits_NV in zip(contexts, forest, logits, strict=True):
        for node in range(len(tree)):
            alone = logits_of(decoder, [*context, *tree.path_tokens(node)])[-1]
            torch.testing.assert_close(logits_NV[node], alone, rtol=0, atol=TOLERANCES[dtype])


def test_tree_logits_of_the_embedded_target_equal_every_root_path_run_alone(embedded: Pair) -> None:
    tree = TokenTree(np.array([5, 6, 7, 6, 8, 9, 5]), np.array([-1, 0, 0, 1, 1, 2, 4]), np.array([0, 1, 1, 2, 2, 2, 3]))
    for model, tolerance in ((embedded.target, 1e-4), (embedded.exact_target, 1e-10)):
        context = embedded.prompts[2]
        (logits_NV,) = forest_logits(model.decoder, [context], [tree])
        alone = torch.stack([logits_of(model.decoder, [*context, *tree.path_tokens(node)])[-1] for node in range(7)])
        torch.testing.assert_close(logits_NV, alone, rtol=0, atol=tolerance)


def forest_logits(decoder: Decoder, contexts: Sequence[Sequence[int]], forest: list[TokenTree]) -> list[Tensor]:
    """One pass over trees of several requests, each below its own context."""
    runner = ModelRunner(decoder, len(contexts), max(map(len, contexts)) + max(map(len, forest)))
    rows = []
    for context, tree in zip(contexts, forest, strict=True):
        region, _ = prefill(runner, context)
        lease = runner.allocator.lease(region, len(tree))
        positions = len(context) + tree.depths
        rows.append(ForwardRow(lease, tree.token_ids, positions, tree.ancestors, len(tree)))
    result = runner.result(runner.submit(rows))
    return [result.logits_RV[start:end] for start, end in zip(result.starts, result.starts[1:], strict=False)]


@DTYPES
@given(data=st.data(), variant=st.sampled_from(sorted(VARIANTS)))
@examples(20)
def test_prompt_in_chunks_equals_the_prompt_at_once(
    tiny: TinyModels, data: st.DataObject, variant: str, dtype: torch.dtype
) -> None:
    decoder = load(tiny.target(variant), dtype).decoder
    prompt = data.draw(st.lists(st.integers(3, decoder.spec.vocab_size - 1), min_size=2, max_size=40))
    runner = ModelRunner(decoder, 1, len(prompt))
    region = runner.allocator.admit()
    logits = []
    while rest := prompt[runner.allocator.context_length(region) :]:
        chunk = rest[: data.draw(st.integers(1, 9))]
        logits.append(runner.result(runner.submit([chain_row(runner, region, chunk, len(chunk))])).logits_RV)
        runner.commit([(region, range(len(chunk)))])
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(torch.cat(logits), logits_of(decoder, prompt), rtol=0, atol=tolerance)
    torch.testing.assert_close(cached(runner, region), cached_from_nothing(decoder, prompt), rtol=0, atol=tolerance)


def test_cancelled_run_leaves_no_trace(gqa: Pair) -> None:
    decoder, prompt = gqa.target.decoder, gqa.prompts[3]
    runner = ModelRunner(decoder, 1, len(prompt) + 8)
    region, _ = prefill(runner, prompt)
    handle = runner.submit([chain_row(runner, region, [9, 8, 7], 3)])
    assert runner.poll(handle)
    runner.cancel(handle)
    assert runner.allocator.context_length(region) == len(prompt)
    result = runner.result(runner.submit([chain_row(runner, region, [11, 12], 2)]))
    torch.testing.assert_close(result.logits_RV, logits_of(decoder, [*prompt, 11, 12])[-2:], rtol=0, atol=1e-5)
