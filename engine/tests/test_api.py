"""The Python interface, the README's example first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.tests.decoding import Pair
from treespec.api import LanguageModel, SamplingParams, load
from treespec.errors import ConfigError, PromptError
from treespec.request import FinishReason

ROOT = Path(__file__).parents[2]
PROMPTS = ["def read_lines(path):", "import os\n", "# Return the"]


@pytest.fixture(scope="module")
def llm(embedded_dir: Path) -> LanguageModel:
    return load(embedded_dir / "target", draft=embedded_dir / "draft", max_requests_per_batch=2)


def joined(llm: LanguageModel, prompts: list[str], params: SamplingParams) -> list[str]:
    texts = [""] * len(prompts)
    for piece in llm.stream(prompts, params):
        texts[piece.prompt_index] += piece.text
    return texts


def test_readme_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    monkeypatch.chdir(ROOT)
    exec(compile(example, "README.md", "exec"), {})
    assert "FinishReason." in capsys.readouterr().out


def test_draft_changes_no_token(llm: LanguageModel, embedded_dir: Path) -> None:
    alone, params = load(embedded_dir / "target", max_requests_per_batch=1), SamplingParams(max_new_tokens=32)
    ours, theirs = llm.generate(PROMPTS, params), alone.generate(PROMPTS, params)
    assert [completion.token_ids for completion in ours] == [completion.token_ids for completion in theirs]
    assert any(completion.profile.num_accepted_tokens for completion in ours)
    assert all(completion.profile.num_draft_tokens == 0 for completion in theirs)


@pytest.mark.parametrize("stops", [(), ("return", "self."), ("\n",), ("    ",)])
def test_stream_joins_to_what_generate_returns(llm: LanguageModel, stops: tuple[str, ...]) -> None:
    params = SamplingParams(max_new_tokens=40, stop_strings=stops)
    texts = [completion.text for completion in llm.generate(PROMPTS, params)]
    assert joined(llm, PROMPTS, params) == texts
    assert not any(stop in text for stop in stops for text in texts)


def test_stream_arrives_in_pieces_and_ends_with_a_reason(llm: LanguageModel) -> None:
    pieces = list(llm.stream(PROMPTS[:1], SamplingParams(max_new_tokens=24)))
    assert len(pieces) > 2
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason is FinishReason.MAX_NEW_TOKENS


def test_stream_that_nobody_reads_to_its_end_leaves_the_cache_free(llm: LanguageModel) -> None:
    params = SamplingParams(max_new_tokens=24)
    expected = [completion.token_ids for completion in llm.generate(PROMPTS, params)]
    stream = llm.stream(PROMPTS, params)
    next(stream)
    stream.close()
    assert [completion.token_ids for completion in llm.generate(PROMPTS, params)] == expected


def test_prompts_that_cannot_be_served_are_told_by_index(llm: LanguageModel) -> None:
    with pytest.raises(PromptError, match=r"indices \[1\]"):
        llm.generate(["a", ""])
    with pytest.raises(PromptError, match=r"prompt 0.*at most 3"):
        llm.generate(["def read_lines(path): return"], SamplingParams(max_sequence_length=4))


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ("def f", "not a list; received: str; allowed: a list of strings"),
        ({"a": "b"}, "not a list; received: dict"),
        (None, "not a list; received: NoneType"),
        (["a", 1, None], r"not strings; received: indices \[1, 2\], the first: int"),
        (["a", "\ud800"], r"not valid Unicode; received: indices \[1\]"),
    ],
)
def test_prompts_that_are_no_list_of_texts_are_one_error(llm: LanguageModel, prompts: Any, told: str) -> None:
    with pytest.raises(PromptError, match=told):
        llm.generate(prompts)
    with pytest.raises(PromptError, match=told):
        next(llm.stream(prompts))


@pytest.mark.parametrize(("options", "told"), [({"expansion": [0]}, "positive widths"), ({"dtype": "int8"}, "dtype")])
def test_wrong_options_are_one_error(gqa: Pair, options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(gqa.target_folder, gqa.draft_folder, **options)  # type: ignore[arg-type]
