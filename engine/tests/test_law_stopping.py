"""Law: every mode stops where incremental decoding stops, in the middle of an accepted path too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.checkpoints import SPECIAL_TOKENS
from engine.tests.decoding import WIDE_TREE, Pair, Serving, build_engine, serve
from engine.tests.properties import examples
from treespec.request import FinishReason

EXPANSIONS = ((), (1,) * 8, WIDE_TREE)
NUM_TOKENS = 24


def serve_whole_paths(pair: Pair, serving: Serving) -> tuple[list[list[int]], list[FinishReason | None]]:
    """With the target as its own draft, so that every path is accepted and the stop lies inside it."""
    served = serve(pair.target, pair.target if serving.expansion else None, pair.prompts, serving)
    return served.token_ids, served.reasons


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
@pytest.mark.parametrize("max_new_tokens", [1, 2, 5, 9, 10, 13, 18])
def test_max_new_tokens_may_fall_inside_a_path(gqa: Pair, max_new_tokens: int, expansion: tuple[int, ...]) -> None:
    token_ids, reasons = serve_whole_paths(gqa, Serving(expansion, max_new_tokens=max_new_tokens))
    assert token_ids == gqa.expected(max_new_tokens)
    assert set(reasons) == {FinishReason.MAX_NEW_TOKENS}


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
@pytest.mark.parametrize("ends", [1, 4, 7, 17])
@pytest.mark.parametrize("pair", ["mha", "gqa", "embedded"], indirect=True)
def test_eos_inside_a_path_ends_the_request_there(pair: Pair, ends: int, expansion: tuple[int, ...]) -> None:
    """Every request has an EOS of its own: the token that its greedy text has at ``ends``."""
    texts = pair.expected(NUM_TOKENS)
    engine = build_engine(pair.target, pair.target, Serving(expansion)).engine
    requests = [
        Serving(max_new_tokens=NUM_TOKENS, ignore_eos=False, eos_token_ids=(text[ends],)).request(index, prompt)
        for index, (prompt, text) in enumerate(zip(pair.prompts, texts, strict=True))
    ]
    engine.add(requests)
    engine.run()
    assert [request.output_token_ids for request in requests] == [text[: text.index(text[ends]) + 1] for text in texts]
    assert {request.finish_reason for request in requests} == {FinishReason.EOS}


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
def test_ignored_eos_is_an_ordinary_token(gqa: Pair, expansion: tuple[int, ...]) -> None:
    common = gqa.expected(NUM_TOKENS)[0][2]
    serving = Serving(expansion, max_new_tokens=NUM_TOKENS, ignore_eos=True, eos_token_ids=(common,))
    assert serve_whole_paths(gqa, serving)[0] == gqa.expected(NUM_TOKENS)


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
def test_stop_string_inside_a_path_ends_the_request_with_its_token(gqa: Pair, expansion: tuple[int, ...]) -> None:
    decode = gqa.target.tokenizer.decode
    texts = [text for text in gqa.texts if min(text.continuation[:8]) >= len(SPECIAL_TOKENS)]
    assert len(texts) >= 5
    for text in texts:
        stop = decode(text.continuation[5:8])
        end = decode(text.continuation).index(stop) + len(stop)
        serving = Serving(expansion, max_new_tokens=NUM_TOKENS, stop_strings=("\n never there", stop))
        served = serve(gqa.target, gqa.target, [text.prompt], serving)
        assert served.token_ids == [list(text.continuation[:end])]
        assert served.reasons == [FinishReason.STOP_STRING]
        assert served.requests[0].text(decode) == decode(text.continuation)[: end - len(stop)]


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
@pytest.mark.parametrize("max_sequence_length", [42, 45, 51])
def test_max_sequence_length_ends_every_request_where_its_prompt_leaves_off(
    gqa: Pair, max_sequence_length: int, expansion: tuple[int, ...]
) -> None:
    prompts = [prompt for prompt in gqa.prompts if len(prompt) + NUM_TOKENS > max_sequence_length]
    assert len(prompts) >= 3
    served = serve(
        gqa.target,
        gqa.target,
        prompts,
        Serving(expansion, max_new_tokens=NUM_TOKENS, max_sequence_length=max_sequence_length),
    )
    expected = dict(zip(gqa.prompts, gqa.expected(NUM_TOKENS), strict=True))
    assert served.token_ids == [expected[prompt][: max_sequence_length - len(prompt)] for prompt in prompts]
    assert set(served.reasons) == {FinishReason.MAX_SEQUENCE_LENGTH}


@given(data=st.data(), expansion=st.sampled_from([(1,) * 3, (1,) * 8, WIDE_TREE, (1, 3, 1, 1)]))
@examples(12)
def test_any_mixture_of_stopping_rules_equals_incremental(
    gqa: Pair, data: st.DataObject, expansion: tuple[int, ...]
) -> None:
    texts = gqa.expected(NUM_TOKENS)
    seen = [token_id for text in texts for token_id in text]
    serving = Serving(
        max_new_tokens=data.draw(st.integers(1, NUM_TOKENS)),
        max_sequence_length=data.draw(st.integers(41, 70)),
        ignore_eos=False,
        eos_token_ids=tuple(data.draw(st.lists(st.sampled_from(seen), max_size=2))),
        stop_strings=tuple(
            gqa.target.tokenizer.decode(text[3:5]) for text in data.draw(st.lists(st.sampled_from(texts), max_size=2))
        ),
    )
    incremental = serve(gqa.target, None, gqa.prompts, serving)
    for draft in (gqa.draft, gqa.target):
        served = serve(gqa.target, draft, gqa.prompts, serving.with_(expansion=expansion))
        assert served.token_ids == incremental.token_ids
        assert served.reasons == incremental.reasons
