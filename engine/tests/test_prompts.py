"""Every form of a prompt file and every refusal, prompts as token ids, and the order in which they become requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from engine.tests.checkpoints import character_tokenizer
from engine.tests.decoding import Pair
from engine.tests.scenarios import Bench, scenario
from treespec.config import Scenario
from treespec.errors import ConfigError, InputFileError, PromptError
from treespec.model.tokenizers.text import TextTokenizer
from treespec.prompts import Prompt, prompt_indices, read_prompts
from treespec.serving.passes import warm_up
from treespec.serving.prompts import load_all_prompts, load_prompts, read_prompt_file

TWO = (Prompt("one"), Prompt("two"))
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again.", "Shorter."], "reference": ["x"]},
    {"question_id": 82, "category": "math", "turns": ["Count."]},
]


def lines(*entries: Any) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def write(folder: Path, content: bytes | Any) -> Path:
    """A prompt file of these bytes, or of these data as JSON."""
    path = folder / "prompts.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


FORMS: dict[str, tuple[Any, tuple[Prompt, ...]]] = {
    "list of strings": (["one", "two"], TWO),
    "one string": (b'["one"]', TWO[:1]),
    "objects with a prompt": ([{"prompt": "one", "slo_ratio": 1.0}, {"prompt": "two"}], TWO),
    "objects with a text": ([{"text": "one"}, {"text": "two"}], TWO),
    "objects with a question": ([{"question": "one"}, {"question": "two"}], TWO),
    "instructions, with and without input": (
        [
            {"instruction": "Sort.", "input": "b a", "output": "a b", "text": "Sort. b a -> a b"},
            {"instruction": "Sing.", "input": "", "output": "la", "text": "Sing. -> la"},
            {"instruction": "Hum.", "input": " \n", "output": "mm"},
            {"instruction": "Go."},
        ],
        (Prompt("Sort.\n\nb a"), Prompt("Sing."), Prompt("Hum."), Prompt("Go.")),
    ),
    "categories": (
        [{"prompt": "one", "category": "a"}, {"prompt": "two", "category": None}, {"prompt": "one"}],
        (Prompt("one", "a"), Prompt("two"), Prompt("one")),
    ),
    "the key that all have": ([{"prompt": "no", "text": "one"}, {"text": "two"}], TWO),
    "a number beside another key": ([{"prompt": "one", "input": 3}, {"prompt": "two"}], TWO),
    "lines of strings": (lines("one", "two"), TWO),
    "lines of objects": (lines({"prompt": "one"}, {"prompt": "two"}), TWO),
    "one line, one object": (lines({"prompt": "one"}), TWO[:1]),
    "empty lines and ends of lines of Windows": (b'"one"\r\n\r\n"two"\r\n\n', TWO),
    "a last line without an end": (b'"one"\n"two"', TWO),
    "characters that end lines elsewhere": (
        '"a\u2028b"\n"c\u0085d"'.encode(),
        (Prompt("a\u2028b"), Prompt("c\u0085d")),
    ),
    "question file": (lines(*QUESTIONS), (Prompt("Write.", "writing", 2), Prompt("Count.", "math"))),
    "question file as a list": (QUESTIONS, (Prompt("Write.", "writing", 2), Prompt("Count.", "math"))),
    "list after a byte order mark": (b'\xef\xbb\xbf["one", "two"]', TWO),
    "lines after a byte order mark": (b"\xef\xbb\xbf" + lines("one", "two"), TWO),
    "equal prompts": (["one", "one"], (Prompt("one"), Prompt("one"))),
    "slashes and hashes in prompts": (['a // b, "c" # d'], (Prompt('a // b, "c" # d'),)),
    "pairs of surrogates": (b'["\\ud83e\\udd8a"]', (Prompt("\U0001f98a"),)),
}


@pytest.mark.parametrize(("content", "expected"), FORMS.values(), ids=FORMS)
def test_every_form_is_read(content: Any, expected: tuple[Prompt, ...], tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, content)) == expected


BAD_FILES: dict[str, tuple[Any, list[str]]] = {
    "no bytes": (b"", ["not valid JSON", "line 1 column 1"]),
    "empty list": ([], ["prompt file is empty", "at least one prompt"]),
    "another encoding": (
        '["é"]'.encode("latin-1"),
        ["is not UTF-8", "byte 0xe9 at position 2", "fix: save it as UTF-8"],
    ),
    "another width": ('["one"]'.encode("utf-16"), ["is not UTF-8; ", "received: UTF-16", "fix: save it as UTF-8"]),
    "another width, unmarked": ('["one"]'.encode("utf-16-le"), ["is not UTF-8; ", "received: UTF-16-LE"]),
    "depths of lists": (b"[" * 100_000, ["another form", "too deep within one another"]),
    "cut short": (b'["one",\n"tw', ["not valid JSON", "at line 2 column 1", "allowed: a JSON list of strings"]),
    "comment before the list": (b'// mine\n["one"]', ["a comment at line 1 column 1", "JSON has none"]),
    "comment in the list": (b'["one", // first\n"two"]', ["a comment at line 1 column 9", "JSON has none"]),
    "comment of two lines": (b'["one"\n/* no\nmore */]', ["a comment at line 2 column 1", "JSON has none"]),
    "comment after the list": (b'["one"]\n# end', ["a comment at line 2 column 1", "JSON has none"]),
    "comment between lines": (b'"one"\n# next\n"two"', ["a comment at line 2 column 1", "JSON has none"]),
    "a bad line": (b'"one"\n\n{"prompt": }\n', ["at line 3 column 12"]),
    "a number": (b"7", ["another form", "a number", "one such per line"]),
    "numbers in a list": (["a", 1, "b", None], ["no strings: indices [1, 3], the first a number"]),
    "a list in a list": ([["a"]], ["no strings: indices [0], the first a list"]),
    "an object among strings": (["a", {"prompt": "b"}], ["no strings: indices [1], the first an object"]),
    "a string among objects": ([{"prompt": "b"}, "a"], ["no objects: indices [1], the first a string"]),
    "no key of a prompt": (
        [{"prompt": "a"}, {"goal": "b", "sol1": "c"}],
        ["indices [1], the first with the keys ['goal', 'sol1']", "keys prompt, instruction, question, text, turns"],
    ),
    "different keys": ([{"prompt": "a"}, {"text": "b"}], ["different keys: index 0 under prompt, index 1 under text"]),
    "a key of all but one": (
        [{"prompt": "a", "text": "b"}, {"prompt": "a"}, {"text": "b"}],
        ["different keys: index 0 under prompt, index 2 under text"],
    ),
    "a prompt that is no string": ([{"prompt": "a"}, {"prompt": True}], ["indices [1], the first true or false"]),
    "an input that is no string": ([{"instruction": "a", "input": ["b"]}], ["input is no string: indices [0]"]),
    "a category that is no string": ([{"text": "a", "category": 4}], ["category is no string: indices [0]"]),
    "so beside an instruction": ([{"instruction": "a", "category": 4}], ["category is no string: indices [0]"]),
    "no turn": (lines(QUESTIONS[0], {"turns": []}), ["turns that are no list of strings: indices [1]"]),
    "turns that are a string": ([{"turns": "Write."}], ["turns that are no list of strings: indices [0]"]),
    "turns that are no strings": ([{"turns": ["a", 1]}], ["turns that are no list of strings: indices [0]"]),
    "a question twice": (lines(*QUESTIONS, QUESTIONS[0]), ["question ids must be unique", "['81']"]),
    "half a pair of surrogates": (b'["a", "\\ud800"]', ["not valid Unicode", "indices [1]"]),
}


@pytest.mark.parametrize(("content", "told"), BAD_FILES.values(), ids=BAD_FILES)
def test_every_bad_file_is_told_in_one_line(content: Any, told: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputFileError) as caught:
        read_prompts(path)
    message = str(caught.value)
    assert [part for part in (str(path), *told) if part not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize("name", ["gone.json", "."])
def test_a_file_that_cannot_be_read_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="prompt file cannot be read"):
        read_prompts(tmp_path / name)


def beginning() -> Tokenizer:
    """Begins every text with a token, as LLaMA's does."""
    tokenizer = character_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def loaded(tokenizer: Tokenizer, folder: Path) -> TextTokenizer:
    """As from a model folder."""
    tokenizer.save(str(folder / "tokenizer.json"))
    return TextTokenizer.load(folder)


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    """One token per character."""
    return loaded(character_tokenizer(), tmp_path)


def over(path: Path, **settings: Any) -> Scenario:
    return Scenario.model_validate(scenario("one", prompts=path, **{"max_requests_per_batch": 1} | settings))


def test_prompts_are_loaded_in_file_order(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path, ["abc", "b", "a"])
    assert load_prompts(over(path), tokenizer, 64) == [tokenizer.encode(text) for text in ("abc", "b", "a")]
    assert load_prompts(over(path, num_prompts=2), tokenizer, 64) == [tokenizer.encode(text) for text in ("abc", "b")]
    assert len(load_prompts(over(path, num_prompts=3), tokenizer, 64)) == 3


def test_more_prompts_than_there_are_is_refused(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"too short.*received: num_prompts 2; allowed: at most 1"):
        load_prompts(over(write(tmp_path, ["a"]), num_prompts=2), tokenizer, 64)


def test_a_batch_that_the_file_never_fills_is_refused(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path, ["a", "b"])
    with pytest.raises(ConfigError, match=r"scenario 'one'.*2 prompts for max_requests_per_batch 3; fix: more prompts"):
        load_prompts(over(path, max_requests_per_batch=3), tokenizer, 64)
    assert len(load_prompts(over(path, max_requests_per_batch=2), tokenizer, 64)) == 2
    repeated = over(path, max_requests_per_batch=3, batch_composition="repeated")
    assert len(load_prompts(repeated, tokenizer, 64)) == 2


@pytest.mark.parametrize("make", [character_tokenizer, beginning])
def test_all_empty_prompts_are_named(make: Callable[[], Tokenizer], tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"without any token.*indices \[1, 3\]"):
        load_prompts(over(write(tmp_path, ["a", "", "b", ""])), loaded(make(), tmp_path), 64)


def test_all_prompts_without_room_for_a_token_are_named(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path, ["x" * 29, "x" * 30, "a", "x" * 31])
    with pytest.raises(PromptError, match=r"prompt 1: 30 tokens, prompt 3: 31 tokens; allowed: at most 29 tokens"):
        load_prompts(over(path), tokenizer, 30)


def test_prompts_whose_output_will_be_cut_are_served_and_named(
    tokenizer: TextTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, ["x" * 10, "x" * 11, "a", "x" * 29])
    assert [len(ids) for ids in load_prompts(over(path), tokenizer, 30)] == [10, 11, 1, 29]
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith("more than 10 tokens: prompt 1: 11 tokens, prompt 3: 29 tokens")
    assert "max_sequence_length 30" in told
    assert "max_new_tokens 20" in told
    load_prompts(over(path, max_new_tokens=1), tokenizer, 30)
    assert capsys.readouterr().err == ""


def test_turns_that_are_not_used_are_counted(
    tokenizer: TextTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, lines(*QUESTIONS, {"turns": ["a", "b"]}))
    assert read_prompt_file(path) == ["Write.", "Count.", "a"]
    assert "not used: 3 in 2 of 3 entries" in capsys.readouterr().err
    load_prompts(over(path, num_prompts=2), tokenizer, 64)
    assert "not used: 2 in 1 of 2 entries" in capsys.readouterr().err
    read_prompt_file(write(tmp_path, ["a"]))
    assert capsys.readouterr().err == ""


def test_what_there_is_to_say_of_a_file_is_said_once(
    tokenizer: TextTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, lines(*QUESTIONS))
    scenarios = [over(path).model_copy(update={"name": name}) for name in ("a", "b", "c")]
    scenarios[2] = scenarios[2].model_copy(update={"max_new_tokens": 59})
    by_name = load_all_prompts(scenarios, tokenizer, 64)
    assert list(by_name) == ["a", "b", "c"]
    assert by_name["a"] == by_name["b"] == by_name["c"]
    assert by_name["a"].token_ids == [tokenizer.encode("Write."), tokenizer.encode("Count.")]
    assert by_name["a"].categories == ["writing", "math"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "later turns" in told[0]
    assert "max_new_tokens 59" in told[1]


@pytest.mark.parametrize(
    ("composition", "batch_size", "expected"),
    [("mixed", 1, [0, 1, 2]), ("mixed", 2, [0, 1, 2]), ("repeated", 1, [0, 1, 2]), ("repeated", 2, [0, 0, 1, 1, 2, 2])],
)
def test_order_of_requests(composition: str, batch_size: int, expected: list[int], tmp_path: Path) -> None:
    item = over(tmp_path, batch_composition=composition, max_requests_per_batch=batch_size)
    assert prompt_indices(item, 3) == expected


def test_batches_are_mixed_unless_told_otherwise(tmp_path: Path) -> None:
    assert over(tmp_path).batch_composition == "mixed"


def test_repeated_batches_hold_equal_requests(embedded: Pair) -> None:
    bench = Bench.of(embedded, [scenario("tree", "tree", batch_composition="repeated", max_new_tokens=8)])
    prompts = embedded.prompts[:2]
    served = bench.serve("tree", prompts)
    assert served.prompt_indices == (0, 0, 0, 1, 1, 1)
    assert [request.request_id for request in served.requests] == [0, 1, 2, 3, 4, 5]
    assert [request.prompt_token_ids for request in served.requests] == [
        tuple(prompts[index]) for index in served.prompt_indices
    ]
    assert [request.output_token_ids for request in served.requests] == [
        embedded.expected(8)[index] for index in served.prompt_indices
    ]
    # Equal requests join and leave together: the second prompt begins when all of the first are done.
    starts = [profile.start_us for profile in served.profiles]
    finished = [profile.finish_us for profile in served.profiles]
    assert max(finished[:3]) <= min(starts[3:])


@pytest.mark.parametrize(("composition", "num_prompts"), [("mixed", 3), ("repeated", 1)])
def test_warming_up_serves_one_full_batch(
    composition: str, num_prompts: int, embedded: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench.of(embedded, [scenario("plain", batch_composition=composition, max_new_tokens=2)])
    seen: list[int] = []
    monkeypatch.setattr("treespec.serving.passes.serve_pass", lambda loaded, item, prompts: seen.append(len(prompts)))
    warm_up(bench.loaded, bench._scenarios["plain"], embedded.prompts)
    assert seen == [num_prompts]
