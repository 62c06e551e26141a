"""Law: greedy output of any expansion equals incremental decoding token for token, in float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.checkpoints import VARIANTS
from engine.tests.conftest import TinyModels
from engine.tests.decoding import (
    CHAINS,
    PAPER_TREE,
    WIDE_TREE,
    Pair,
    Served,
    Serving,
    build_engine,
    load,
    serve,
)
from engine.tests.properties import examples, expansions
from treespec.draft import ssm
from treespec.ops import linear
from treespec.ops.linear import PackedStorage
from treespec.request import FinishReason

EXPANSIONS = ((1,) * 8, WIDE_TREE, PAPER_TREE)
NUM_TOKENS = Serving().max_new_tokens


def serve_pair(pair: Pair, serving: Serving) -> Served:
    return serve(pair.target, pair.draft, pair.prompts, serving)


def test_incremental_equals_greedy_text_computed_without_a_cache(pair: Pair) -> None:
    assert serve_pair(pair, Serving()).token_ids == pair.expected(NUM_TOKENS)


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
def test_long_sequences_and_trees_equal_incremental(pair: Pair, expansion: tuple[int, ...]) -> None:
    assert serve_pair(pair, Serving(expansion)).token_ids == pair.expected(NUM_TOKENS)


@pytest.mark.parametrize("expansion", [*CHAINS, (4,), (1, 2), (3, 1, 2)], ids=str)
def test_every_expansion_equals_incremental(gqa: Pair, expansion: tuple[int, ...]) -> None:
    assert serve_pair(gqa, Serving(expansion)).token_ids == gqa.expected(NUM_TOKENS)


@pytest.mark.parametrize("expansion", [(), (1,) * 4, WIDE_TREE], ids=str)
@pytest.mark.parametrize("batch_size", range(1, 9))
def test_batch_size_changes_no_token(gqa: Pair, batch_size: int, expansion: tuple[int, ...]) -> None:
    served = serve_pair(gqa, Serving(expansion=expansion, batch_size=batch_size))
    assert served.token_ids == gqa.expected(NUM_TOKENS)


@pytest.mark.parametrize("expansion", [(), (1,) * 4, WIDE_TREE], ids=str)
@pytest.mark.parametrize("max_tokens_per_batch", [3, 4, 7, 16])
def test_prompts_longer_than_the_chunk_change_no_token(
    gqa: Pair, max_tokens_per_batch: int, expansion: tuple[int, ...]
) -> None:
    assert max(map(len, gqa.prompts)) > 2 * max_tokens_per_batch
    served = serve_pair(gqa, Serving(expansion=expansion, max_tokens_per_batch=max_tokens_per_batch))
    assert served.token_ids == gqa.expected(NUM_TOKENS)


@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    expansion=expansions(),
    batch_size=st.integers(1, 8),
    spare_tokens=st.integers(0, 40),
    max_new_tokens=st.integers(1, 20),
    order=st.permutations(range(5)),
)
@examples(40)
def test_random_expansions_batches_and_lengths_equal_incremental(
    tiny: TinyModels,
    variant: str,
    expansion: tuple[int, ...],
    batch_size: int,
    spare_tokens: int,
    max_new_tokens: int,
    order: list[int],
) -> None:
    pair = tiny.pair(variant)
    serving = Serving(expansion, batch_size, batch_size + spare_tokens, max_new_tokens)
    served = serve(pair.target, pair.draft, [pair.prompts[index] for index in order], serving)
    expected = pair.expected(max_new_tokens)
    assert served.token_ids == [expected[index] for index in order]


def test_drafts_are_accepted_in_every_degree(pair: Pair) -> None:
    """Otherwise the laws above would hold of a drafter that proposes nothing."""
    accepted = {count for steps in serve_pair(pair, Serving((1,) * 4)).accepted_per_step for count in steps[1:-1]}
    assert accepted == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("expansion", [(1,), *EXPANSIONS], ids=str)
def test_draft_that_is_the_target_is_accepted_to_full_depth(pair: Pair, expansion: tuple[int, ...]) -> None:
    served = serve(pair.target, pair.target, pair.prompts, Serving(expansion, max_tokens_per_batch=512))
    assert served.token_ids == pair.expected(NUM_TOKENS)
    for steps in served.accepted_per_step:
        assert steps == full_acceptance(len(expansion), NUM_TOKENS)
    if set(expansion) == {1}:  # nothing is drafted that no length is left for
        assert [profile.num_draft_tokens for profile in served.profiles] == list(map(sum, served.accepted_per_step))


def full_acceptance(depth: int, num_tokens: int) -> list[int]:
    """The first token has no tree; the last tree is as deep as there is length left."""
    steps, num_emitted = [0], 1
    while num_emitted < num_tokens:
        steps.append(min(depth, num_tokens - num_emitted - 1))
        num_emitted += steps[-1] + 1
    return steps


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_draft_reads_prompts_in_chunks(gqa: Pair, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssm, "CATCH_UP_CHUNK", chunk)
    whole = [text.prompt for text in gqa.texts if len(text.prompt) > 4 * chunk]
    assert whole
    served = serve(gqa.target, gqa.target, whole, Serving((1,) * 4, max_tokens_per_batch=512))
    for steps in served.accepted_per_step:
        assert steps == full_acceptance(4, NUM_TOKENS)


@pytest.mark.parametrize("variant", [name for name, shape in sorted(VARIANTS.items()) if not shape.tied])
@pytest.mark.parametrize("expansion", [(1,) * 8, WIDE_TREE], ids=str)
def test_draft_that_never_agrees_costs_no_target_step_and_no_token(
    tiny: TinyModels, variant: str, expansion: tuple[int, ...]
) -> None:
    pair = tiny.pair(variant)
    incremental = serve_pair(pair, Serving())
    served = serve(pair.target, load(tiny.contrary_draft(variant)), pair.prompts, Serving(expansion))
    assert served.token_ids == pair.expected(NUM_TOKENS)
    assert sum(profile.num_draft_tokens for profile in served.profiles) > 0
    assert all(not any(steps) for steps in served.accepted_per_step)
    assert served.totals.num_target_steps == incremental.totals.num_target_steps
    assert [p.num_target_steps for p in served.profiles] == [p.num_target_steps for p in incremental.profiles]


@given(order=st.permutations(range(9)), expansion=st.sampled_from([(), (1,) * 4, WIDE_TREE]))
@examples(8)
def test_order_of_requests_changes_no_token(gqa: Pair, order: list[int], expansion: tuple[int, ...]) -> None:
    served = serve(gqa.target, gqa.draft, [gqa.prompts[index] for index in order], Serving(expansion))
    expected = gqa.expected(NUM_TOKENS)
    assert served.token_ids == [expected[index] for index in order]


@given(
    arrivals=st.lists(st.integers(0, 12), min_size=9, max_size=9),
    lengths=st.lists(st.integers(1, NUM_TOKENS), min_size=9, max_size=9),
    expansion=st.sampled_from([(), (1,) * 3, WIDE_TREE]),
)
@examples(15)
def test_requests_that_join_and_leave_between_steps_change_no_token(
    gqa: Pair, arrivals: list[int], lengths: list[int], expansion: tuple[int, ...]
) -> None:
    engine = build_engine(gqa.target, gqa.draft, Serving(expansion, batch_size=4)).engine
    requests = [
        Serving(max_new_tokens=length).request(index, prompt)
        for index, (prompt, length) in enumerate(zip(gqa.prompts, lengths, strict=True))
    ]
    finished = []
    for step in range(400):
        engine.add([request for request, arrival in zip(requests, arrivals, strict=True) if arrival == step])
        finished += engine.step()
        if len(finished) == len(requests):
            break
    assert sorted(request.request_id for request in finished) == list(range(9))
    expected = gqa.expected(NUM_TOKENS)
    assert [r.output_token_ids for r in requests] == [expected[i][:length] for i, length in enumerate(lengths)]
    assert all(request.finish_reason is FinishReason.MAX_NEW_TOKENS for request in requests)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("expansion", [(), (1,) * 4, WIDE_TREE], ids=str)
def test_packed_weights_change_no_token(gqa: Pair, expansion: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "PACK_MIN_ELEMENTS", 1)
    assert isinstance(linear.best_storage(torch.ones(32, 32)), PackedStorage)
    target, draft = load(gqa.target_folder), load(gqa.draft_folder)
    assert serve(target, draft, gqa.prompts, Serving(expansion)).token_ids == gqa.expected(NUM_TOKENS)


@pytest.mark.parametrize("pair", ["gqa", "embedded"], indirect=True)
def test_counts_of_a_pass_agree_with_its_requests(pair: Pair) -> None:
    served = serve_pair(pair, Serving(PAPER_TREE))
    for request, profile in zip(served.requests, served.profiles, strict=True):
        emitted = sum(count + 1 for count in profile.accepted_per_step)
        assert emitted == len(request.output_token_ids) == NUM_TOKENS
        assert profile.num_accepted_tokens <= profile.num_draft_tokens
        assert 0 <= profile.start_us <= profile.first_token_us <= profile.finish_us
    assert served.totals.num_output_tokens == NUM_TOKENS * len(served.requests)
    steps = [profile.num_target_steps for profile in served.profiles]
    assert max(steps) <= served.totals.num_target_steps <= sum(steps)
