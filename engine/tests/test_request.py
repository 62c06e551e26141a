"""The one stopping rule, token by token, and the texts and counts of a request."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples
from treespec.config import Sampling
from treespec.request import FinishReason, Request, RequestStatus, SamplingParams


def decode(token_ids: object) -> str:
    """Token 0 is "a", 1 is "b" and so on; 25 is a special token without text."""
    return "".join(chr(ord("a") + token_id) for token_id in token_ids if token_id != 25)  # type: ignore[attr-defined]


def running(params: SamplingParams, num_prompt_tokens: int = 3, eos: tuple[int, ...] = (25,)) -> Request:
    return Request(0, (7,) * num_prompt_tokens, params, eos, status=RequestStatus.RUNNING)


@pytest.mark.parametrize(
    ("params", "emitted", "taken", "reason", "text"),
    [
        (SamplingParams(), [0, 1, 2], 3, None, "abc"),
        (SamplingParams(), [0, 25, 2], 2, FinishReason.EOS, "a"),
        (SamplingParams(ignore_eos=True), [0, 25, 2], 3, None, "ac"),
        (SamplingParams(stop_strings=("bc",)), [0, 1, 2, 3], 3, FinishReason.STOP_STRING, "a"),
        (SamplingParams(stop_strings=("c", "bc")), [0, 1, 2, 3], 3, FinishReason.STOP_STRING, "a"),
        (SamplingParams(stop_strings=("x",)), [0, 1], 2, None, "ab"),
        (SamplingParams(max_new_tokens=2), [0, 1, 2], 2, FinishReason.MAX_NEW_TOKENS, "ab"),
        (SamplingParams(max_sequence_length=5), [0, 1, 2], 2, FinishReason.MAX_SEQUENCE_LENGTH, "ab"),
        (SamplingParams(max_new_tokens=2, max_sequence_length=5), [0, 1], 2, FinishReason.MAX_NEW_TOKENS, "ab"),
        (SamplingParams(max_new_tokens=2), [0, 25], 2, FinishReason.EOS, "a"),
        (SamplingParams(max_new_tokens=2, stop_strings=("b",)), [0, 1], 2, FinishReason.STOP_STRING, "a"),
    ],
    ids=[
        "goes on", "eos", "eos ignored", "stop string", "first of two", "no stop string", "length", "sequence",
        "both limits", "eos before length", "stop string before length",
    ],
)  # fmt: skip
def test_request_ends_with_the_token_that_ends_it(
    params: SamplingParams, emitted: list[int], taken: int, reason: FinishReason | None, text: str
) -> None:
    request = running(params)
    assert request.append(emitted, decode) == taken
    assert request.output_token_ids == emitted[:taken]
    assert request.finish_reason is reason
    assert request.status is (RequestStatus.RUNNING if reason is None else RequestStatus.FINISHED)
    assert request.text(decode) == text


@given(data=st.data(), tokens=st.lists(st.integers(0, 25), min_size=1, max_size=30))
@examples(200)
def test_several_tokens_at_once_end_where_single_ones_do(data: st.DataObject, tokens: list[int]) -> None:
    params = SamplingParams(
        max_new_tokens=data.draw(st.integers(1, 30)),
        max_sequence_length=data.draw(st.integers(4, 30)),
        ignore_eos=data.draw(st.booleans()),
        stop_strings=tuple(data.draw(st.lists(st.text("abc", min_size=1, max_size=2), max_size=2))),
    )
    single, several = running(params), running(params)
    for token in tokens:
        if single.status is RequestStatus.RUNNING:
            assert single.append([token], decode) == 1
    rest = tokens
    while rest and several.status is RequestStatus.RUNNING:
        count = data.draw(st.integers(1, len(rest)))
        several.append(rest[:count], decode)
        rest = rest[count:]
    assert several == single


@given(num_prompt=st.integers(1, 8), output=st.lists(st.integers(0, 9), max_size=8))
@examples(100)
def test_tokens_are_counted_and_cut_over_prompt_and_output(num_prompt: int, output: list[int]) -> None:
    request = running(SamplingParams(max_new_tokens=10, max_sequence_length=14), num_prompt)
    request.output_token_ids += output
    whole = [*request.prompt_token_ids, *output]
    assert request.num_tokens == len(whole)
    assert request.last_token_id == whole[-1]
    assert request.num_remaining == min(10 - len(output), 14 - len(whole))
    for start in range(len(whole) + 1):
        assert request.tokens_from(start) == whole[start:]


def test_request_is_plain_data() -> None:
    request = running(SamplingParams(stop_strings=("x",)))
    request.append([1, 25], decode)
    data = asdict(request)
    data["status"], data["finish_reason"] = request.status.value, "eos"
    assert json.loads(json.dumps(data, default=Sampling.model_dump))["output_token_ids"] == [1, 25]


def test_finished_requests_take_no_more_tokens() -> None:
    request = running(SamplingParams(max_new_tokens=1))
    request.append([1], decode)
    with pytest.raises(AssertionError):
        request.append([2], decode)
