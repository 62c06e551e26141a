"""Law: whoever drafts and whoever judges, greedy output is incremental decoding's, and a seed decides sampled text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.tests.conftest import TinyModels
from engine.tests.decoding import Pair
from engine.tests.scenarios import DRAFTERS, Bench, scenario
from treespec.config import Sampling
from treespec.request import FinishReason

MOST_REQUESTS = 16
PLAIN: dict[str, Any] = {"temperature": 1.0, "seed": 3}
TRUNCATED: dict[str, Any] = {"temperature": 0.7, "top_k": 12, "top_p": 0.9, "min_p": 0.02, "seed": 4}
RATIO_RULES = [
    ("token_rejection", "chain-drawn"),
    ("block", "chain-drawn"),
    ("mss", "tree-iid"),
    ("mss", "two-models-drawn"),
    ("recursive_rejection", "tree-without-replacement"),
    ("recursive_rejection", "portfolio"),
    ("traversal", "tree-without-replacement"),
]


@pytest.fixture(scope="module")
def bench(tiny: TinyModels) -> Bench:
    scenarios = [scenario("incremental", max_requests_per_batch=MOST_REQUESTS)]
    scenarios += [scenario(name, name) for name in DRAFTERS]
    scenarios += [
        scenario(f"{rule}-{drafters}", drafters, verifier=rule, sampling=PLAIN) for rule, drafters in RATIO_RULES
    ]
    return Bench.of(tiny.pair("gqa"), scenarios)


@pytest.mark.parametrize("batch_size", [1, 4, MOST_REQUESTS])
@pytest.mark.parametrize("drafters", DRAFTERS)
def test_greedy_output_is_incremental_decodings(bench: Bench, gqa: Pair, drafters: str, batch_size: int) -> None:
    prompts, expected = (gqa.prompts * 2)[:MOST_REQUESTS], (gqa.expected(20) * 2)[:MOST_REQUESTS]
    assert bench.token_ids(drafters, prompts, max_requests_per_batch=batch_size) == expected


@pytest.mark.parametrize("drafters", DRAFTERS)
def test_prompts_longer_than_the_chunk_change_no_token(bench: Bench, gqa: Pair, drafters: str) -> None:
    assert bench.token_ids(drafters, gqa.prompts, max_tokens_per_batch=5) == gqa.expected(20)


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 7])
@pytest.mark.parametrize("drafters", DRAFTERS)
def test_output_ends_in_the_middle_of_a_path(bench: Bench, gqa: Pair, drafters: str, num_tokens: int) -> None:
    assert bench.token_ids(drafters, gqa.prompts, max_new_tokens=num_tokens) == gqa.expected(num_tokens)


@pytest.mark.parametrize("drafters", DRAFTERS)
def test_output_ends_at_a_stop_string_wherever_it_falls(bench: Bench, gqa: Pair, drafters: str) -> None:
    decode = bench.loaded.target.tokenizer.decode
    stop = decode([gqa.texts[0].continuation[4]])
    plain = bench.serve("incremental", gqa.prompts, stop_strings=(stop,))
    served = bench.serve(drafters, gqa.prompts, stop_strings=(stop,))
    assert [r.output_token_ids for r in served.requests] == [r.output_token_ids for r in plain.requests]
    assert served.requests[0].finish_reason is FinishReason.STOP_STRING


@pytest.mark.parametrize("sampling", [PLAIN, TRUNCATED], ids=["plain", "truncated"])
@pytest.mark.parametrize("drafters", DRAFTERS)
def test_sampler_match_has_the_text_of_decoding_without_speculation(
    bench: Bench, gqa: Pair, drafters: str, sampling: dict[str, Any]
) -> None:
    changes = {"sampling": Sampling(**sampling)}
    expected = bench.token_ids("incremental", gqa.prompts, **changes)
    assert expected != gqa.expected(20)
    for batch_size in (1, 5):
        assert bench.token_ids(drafters, gqa.prompts, max_requests_per_batch=batch_size, **changes) == expected


# A suffix drafter learns from the requests beside it: its trees are not fixed, only the distribution is kept.
@pytest.mark.parametrize(("rule", "drafters"), [pair for pair in RATIO_RULES if pair[1] != "portfolio"])
def test_text_is_a_function_of_seed_and_request_whatever_the_batch(
    bench: Bench, gqa: Pair, rule: str, drafters: str
) -> None:
    name = f"{rule}-{drafters}"
    alone = bench.token_ids(name, gqa.prompts, max_requests_per_batch=1)
    assert bench.token_ids(name, gqa.prompts, max_requests_per_batch=5) == alone
    assert bench.token_ids(name, gqa.prompts, max_tokens_per_batch=7) == alone
    other = bench.token_ids(name, gqa.prompts, sampling=Sampling(**PLAIN | {"seed": 99}))
    assert other != alone


@pytest.mark.parametrize(("rule", "drafters"), RATIO_RULES)
def test_every_rule_is_greedy_at_temperature_zero(bench: Bench, gqa: Pair, rule: str, drafters: str) -> None:
    assert bench.token_ids(f"{rule}-{drafters}", gqa.prompts, sampling=Sampling()) == gqa.expected(20)


def test_counts_by_depth_and_rank_agree_with_the_steps(bench: Bench, gqa: Pair) -> None:
    served = bench.serve("tree", gqa.prompts)
    for request, profile in zip(served.requests, served.profiles, strict=True):
        steps = profile.accepted_per_step
        assert sum(steps) + len(steps) == len(request.output_token_ids)
        # The first step judges the prompt's end without a tree.
        assert profile.offered[0] == [profile.offered[0][0]] * 2 and profile.offered[0][0] <= len(steps) - 1
        reached = [sum(ranks) for ranks in profile.accepted]
        assert reached == sorted(reached, reverse=True), "a depth is reached through the one above"
        assert sum(reached) >= sum(steps), "what a stop cuts off was accepted too"
        for depth, ranks in enumerate(profile.offered[1:], start=1):
            assert ranks[0] <= reached[depth - 1]
    parts = served.totals.time_us
    assert set(parts) == {"draft", "build", "forward", "verify", "commit", "other"}
    assert sum(parts.values()) == served.totals.wall_us


def test_draft_models_of_two_families_share_one_tree(embedded_dir: Path, embedded: Pair) -> None:
    drafts = [embedded_dir / "draft", embedded_dir.parent / "opt" / "draft"]
    bench = Bench(embedded.target_folder, drafts, [scenario("both", "two-models"), scenario("first", "tree")])
    both, first = (bench.serve(name, embedded.prompts) for name in ("both", "first"))
    assert [request.output_token_ids for request in both.requests] == embedded.expected(20)
    proposed = [sum(profile.num_draft_tokens for profile in served.profiles) for served in (both, first)]
    assert proposed[0] > proposed[1], "the second family added nothing"
