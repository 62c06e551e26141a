"""The basic test's part with weights streamed from disk: passes on a right engine, fails on every planted error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import basic_test
from treespec.model.offload.stream import StreamCounts, WeightStream

RunChecks = Callable[[], list[dict[str, object]]]
OPT = Path(basic_test.__file__).parent / "models/embedded/opt"


@pytest.fixture
def check_streamed(monkeypatch: pytest.MonkeyPatch) -> RunChecks:
    """The checks of the streamed pair alone, on the embedded one: the tiny one is smaller than any budget."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(basic_test, "NUM_PROMPTS", basic_test.STREAMED_BATCH_SIZE)
    monkeypatch.setattr(basic_test, "NUM_NEW_TOKENS", 8)

    def check() -> list[dict[str, object]]:
        report: list[dict[str, object]] = []
        pair = basic_test.Pair(OPT / "target", OPT / "draft")
        basic_test.check_streamed(pair, OPT.parents[2] / "prompts/mixed.json", report)
        return report

    return check


def test_streamed_weights_give_the_tokens_of_resident_ones(check_streamed: RunChecks) -> None:
    report = check_streamed()
    assert [check["check"] for check in report] == [
        f"streamed from disk, {mode}: {what}"
        for mode in ("incremental", "sequence", "tree")
        for what in ("tokens equal the resident model's", "each step reads all that does not stay")
    ]
    facts = [check for check in report if "bytes_per_step" in check]
    assert all(0 < int(str(fact["bytes_per_step"])) < int(str(fact["model_bytes"])) for fact in facts)


def a_streamed_map_is_another(patch: pytest.MonkeyPatch) -> None:
    holding = WeightStream.holding

    @contextmanager
    def rolled(stream: WeightStream, index: int) -> Iterator[list[torch.Tensor]]:
        with holding(stream, index) as parts:
            yield [part.roll(1, dims=0) for part in parts]

    patch.setattr(WeightStream, "holding", rolled)


def a_map_is_not_read_again(patch: pytest.MonkeyPatch) -> None:
    take_counts = WeightStream.take_counts

    def fewer(stream: WeightStream) -> StreamCounts:
        counts = take_counts(stream)
        return replace(counts, num_bytes=counts.num_bytes * 3 // 4)

    patch.setattr(WeightStream, "take_counts", fewer)


def everything_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(basic_test, "STREAMED_BUDGET", 2)


@pytest.mark.parametrize(
    ("plant", "failing"),
    [
        (a_streamed_map_is_another, "streamed from disk, incremental: tokens equal"),
        (a_map_is_not_read_again, "streamed from disk, incremental: each step reads"),
        (everything_stays, "streamed from disk, incremental: each step reads"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_error_in_streaming_fails_the_check_that_guards_against_it(
    plant: Callable[[pytest.MonkeyPatch], None],
    failing: str,
    check_streamed: RunChecks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(basic_test.CheckFailedError, match=failing):
        check_streamed()


@pytest.mark.parametrize("words", [[], ["--streamed", "large", "little"]])
def test_the_streamed_pair_is_the_one_named_or_that_of_the_other_checks(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    given: list[object] = []
    monkeypatch.setattr(basic_test, "run_checks", lambda *words: given.extend(words) or [])
    monkeypatch.setattr(sys, "argv", ["basic_test.py", "--target", "a", "--draft", "b", *words])
    assert basic_test.main() == 0
    named = [Path(name) for name in words[1:] or ["a", "b"]]
    assert given[-2] == basic_test.Pair(*named)
