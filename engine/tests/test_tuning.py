"""Measures, schedules and the corpus of the embedded models' training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.decoding import PAPER_TREE, WIDE_TREE, Pair, Serving, serve
from engine.tests.properties import examples
from treespec.tuning import prompt_sets
from treespec.tuning.corpus import (
    BOS_TOKEN_ID,
    EOS_TOKEN_ID,
    SourceFile,
    TokenStreams,
    encode_stream,
    standard_library_sources,
    train_tokenizer,
)
from treespec.tuning.evaluate import (
    Repetition,
    agreement,
    distinct_share,
    draft_ranks,
    tokens_before_loop,
    tokens_per_step,
)
from treespec.tuning.optimisers import learning_rate_share
from treespec.tuning.phases import repeated_ngram_mask
from treespec.tuning.recipes import RECIPES, Phase

rows_of_tokens = st.lists(st.integers(0, 3), min_size=8, max_size=40)


@given(rows=st.lists(st.lists(st.integers(0, 2), min_size=20, max_size=20), min_size=1, max_size=3), data=st.data())
@examples(100)
def test_repeated_ngrams_are_marked_where_they_end(rows: list[list[int]], data: st.DataObject) -> None:
    first, ngram = data.draw(st.integers(0, 19)), data.draw(st.integers(1, 6))
    mask = repeated_ngram_mask(torch.tensor(rows), first, ngram)
    assert mask.shape == (len(rows), 20 - first)
    for b, row in enumerate(rows):
        for t in range(first, 20):
            gram = row[t - ngram + 1 : t + 1]
            earlier = [row[s - ngram + 1 : s + 1] for s in range(ngram - 1, t)]
            assert bool(mask[b, t - first]) == (t >= ngram - 1 and gram in earlier)


@given(tokens=rows_of_tokens)
@examples(100)
def test_distinct_share_counts_four_grams(tokens: list[int]) -> None:
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    assert distinct_share(tokens) == sum(gram not in grams[:i] for i, gram in enumerate(grams)) / len(grams)


def test_text_that_never_repeats_is_wholly_distinct() -> None:
    assert distinct_share(range(128)) == 1.0
    assert tokens_before_loop(range(128)) == 128
    assert distinct_share([7] * 128) == 1 / 125


@given(tokens=st.lists(st.integers(0, 1), min_size=8, max_size=60))
@examples(100)
def test_loop_begins_with_the_first_eight_gram_seen_before(tokens: list[int]) -> None:
    begin = tokens_before_loop(tokens)
    grams = [tokens[i : i + 8] for i in range(len(tokens) - 7)]
    repeated = [i for i, gram in enumerate(grams) if gram in grams[:i]]
    assert begin == (repeated[0] if repeated else len(tokens))


def test_repetition_of_a_set_of_texts() -> None:
    measured = Repetition.of([list(range(40)), [3] * 40])
    assert measured.distinct_mean == pytest.approx((1 + 1 / 37) / 2)
    assert measured.distinct_min == pytest.approx(1 / 37)
    assert (measured.loop_share, measured.before_loop_mean) == (0.5, (40 + 1) / 2)


@given(
    ranks=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    expansion=st.lists(st.integers(1, 3), min_size=1, max_size=6),
)
@examples(200)
def test_tokens_per_step_equals_walking_whole_trees(ranks: list[int], expansion: list[int]) -> None:
    """A tree of ranks holds every path whose rank at depth i is at most the width there."""
    paths = {path for depth in range(len(expansion) + 1) for path in product(*map(ranks_up_to, expansion[:depth]))}
    position = num_steps = 0
    while position < len(ranks):
        longest = max(len(path) for path in paths if list(path) == ranks[position : position + len(path)])
        position, num_steps = position + longest + 1, num_steps + 1
    assert tokens_per_step(np.array(ranks), expansion) == (len(ranks), num_steps)


def ranks_up_to(width: int) -> range:
    return range(1, width + 1)


@pytest.mark.parametrize("expansion", [(1,) * 4, WIDE_TREE, PAPER_TREE], ids=str)
def test_steps_predicted_from_ranks_are_the_engines_steps(gqa: Pair, expansion: tuple[int, ...]) -> None:
    """The prompt's pass emits the first token, so that speculation runs over the rest."""
    from transformers import AutoModelForCausalLM

    draft = AutoModelForCausalLM.from_pretrained(gqa.draft_folder, dtype=torch.float32, local_files_only=True)
    served = serve(gqa.target, gqa.draft, gqa.prompts, Serving(expansion, max_tokens_per_batch=512, max_new_tokens=24))
    for prompt, text, steps in zip(gqa.prompts, gqa.expected(24), served.accepted_per_step, strict=True):
        if len(prompt) > 1:
            ranks = draft_ranks(draft, [*prompt, text[0]], text[1:])
            assert tokens_per_step(ranks, expansion) == (23, len(steps) - 1)


def test_agreement_pools_ranks() -> None:
    pooled = agreement([np.array([1, 2, 1, 6]), np.array([3, 1])])
    assert (pooled.num_tokens, pooled.top_k) == (6, [3 / 6, 4 / 6, 5 / 6, 5 / 6, 5 / 6])
    assert pooled.tokens_per_step["sequence 4"] == pytest.approx(6 / (3 + 1))


PHASES = [
    Phase(200, 1.0, 0.02, 0.25, 1, 1),
    Phase(10, 0.2, 0.02, 0.3, 1, 1),
    *(phase for recipe in RECIPES.values() for phase in (recipe.target_ce, recipe.target_unlikelihood)),
]


@pytest.mark.parametrize("phase", PHASES, ids=str)
def test_learning_rate_warms_up_stays_and_falls_in_a_line(phase: Phase) -> None:
    shares = [learning_rate_share(phase, step) for step in range(phase.num_steps)]
    warm_up = max(1, round(0.02 * phase.num_steps))
    flat_end = max(warm_up, round(phase.flat_share * phase.num_steps))
    assert all(0 < share <= phase.peak_rate for share in shares)
    assert shares[:warm_up] == sorted(shares[:warm_up])
    assert shares[warm_up - 1] == phase.peak_rate
    assert set(shares[warm_up:flat_end]) <= {phase.peak_rate}
    falls = np.diff(shares[flat_end:])
    np.testing.assert_allclose(falls, (phase.final_rate - phase.peak_rate) / (phase.num_steps - flat_end), atol=1e-12)
    assert learning_rate_share(phase, phase.num_steps) == pytest.approx(phase.final_rate)


def write_library(root: Path, names: Sequence[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f'"""{name}"""\n' + "value = 1\n" * 60)


def sides(root: Path) -> dict[str, bool]:
    return {source.name: source.is_held_out for source in standard_library_sources(root)}


def test_a_file_keeps_its_side_whatever_other_files_there_are(tmp_path: Path) -> None:
    names = [f"package/module_{number}.py" for number in range(60)]
    write_library(tmp_path / "small", names[:30])
    write_library(tmp_path / "large", [*names, "extra/other.py"])
    small, large = sides(tmp_path / "small"), sides(tmp_path / "large")
    assert {name: large[name] for name in small} == small
    assert 0 < sum(large.values()) < len(large)


def test_sides_of_known_files_never_change(tmp_path: Path) -> None:
    """Shipped prompts are cut from files that stayed untrained; another split would break that silently."""
    known = {"ast.py": True, "functools.py": True, "pickle.py": True, "bisect.py": False, "json/decoder.py": False}
    write_library(tmp_path, list(known))
    assert sides(tmp_path) == known


def test_only_sources_of_a_fit_length_outside_skipped_folders_are_read(tmp_path: Path) -> None:
    write_library(tmp_path, ["a.py", "site-packages/b.py", "lib2to3/c.py", "test/test_d.py"])
    (tmp_path / "short.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text("words " * 200)
    found = {source.name: source.is_test for source in standard_library_sources(tmp_path)}
    assert found == {"a.py": False, "test/test_d.py": True}


def synthetic_sources() -> list[SourceFile]:
    """Library, test and held-out files that can be told apart by their words."""
    return [
        SourceFile(f"{word}_{number}.py", f"def {word}_{number}():\n    return {number}\n\n\n" * 80, is_test, held_out)
        for word, is_test, held_out in (("library", False, False), ("checks", True, False), ("hidden", False, True))
        for number in range(3)
    ]


def test_held_out_text_is_in_no_training_row() -> None:
    sources = synthetic_sources()
    tokenizer = train_tokenizer(sources, 300)
    streams = TokenStreams.encode(tokenizer, sources)
    rows = streams.training_rows(np.random.default_rng(0), 40, 50, 0.5)
    texts = [tokenizer.decode(row.tolist()) for row in rows]
    assert not any("hidden" in text for text in texts)
    assert any("library" in text for text in texts)
    assert any("checks" in text for text in texts)
    assert all("hidden" in tokenizer.decode(row.tolist()) for row in streams.held_out_rows(5, 50))


def test_share_of_library_rows_is_what_was_asked_for() -> None:
    streams = TokenStreams(np.full(500, 7), np.full(500, 8), np.full(500, 9))
    for share in (0.0, 0.3, 1.0):
        rows = streams.training_rows(np.random.default_rng(1), 400, 4, share)
        assert (rows == 7).all(1).mean() == pytest.approx(share, abs=0.08)


def test_files_stand_between_bos_and_eos() -> None:
    sources = synthetic_sources()[:2]
    tokenizer = train_tokenizer(sources, 300)
    stream = encode_stream(tokenizer, sources)
    assert np.flatnonzero(stream == BOS_TOKEN_ID)[0] == 0
    assert (stream == BOS_TOKEN_ID).sum() == (stream == EOS_TOKEN_ID).sum() == 2
    assert stream[-1] == EOS_TOKEN_ID
    assert tokenizer.decode(stream.tolist()) == "".join(source.text for source in sources)


def source_with_all_anchors(word: str, *, is_test: bool, is_held_out: bool) -> SourceFile:
    """Definitions, a docstring, a block of comments and a test method, each with enough text behind it."""
    body = "".join(f"    value_{n} = {word}(value_{n}, {n})\n" for n in range(200))
    text = (
        f'def {word}_one():\n    """Words on {word}."""\n{body}\n\n' + f"# {word} says\n" * 6 + f"\nclass Tests:\n"
        f"    def test_{word}(self):\n{body.replace('    ', '        ')}\n\ndef {word}_two():\n{body}"
    )
    return SourceFile(f"{word}.py", text, is_test, is_held_out)


def test_prompts_are_cut_from_held_out_files_and_from_no_other() -> None:
    hidden = source_with_all_anchors("hidden", is_test=False, is_held_out=True)
    secret = source_with_all_anchors("secret", is_test=True, is_held_out=True)
    trained_on = [
        source_with_all_anchors("library", is_test=False, is_held_out=False),
        source_with_all_anchors("checks", is_test=True, is_held_out=False),
    ]
    tokenizer = train_tokenizer([hidden, secret, *trained_on], 400)
    prompts = prompt_sets.held_out_prompts([hidden, secret, *trained_on], tokenizer)
    allowed = {"code": [hidden], "docstrings": [hidden], "comments": [hidden], "tests": [secret]}
    assert set(prompts) == {*allowed, "mixed"}
    for name, pairs in prompts.items():
        assert pairs, name
        for prompt, continuation in pairs:
            assert any(prompt + continuation in source.text for source in allowed.get(name, [hidden, secret]))
            assert len(tokenizer.encode(prompt).ids) == prompt_sets.PROMPT_TOKENS
            assert len(tokenizer.encode(continuation).ids) >= prompt_sets.CONTINUATION_TOKENS
