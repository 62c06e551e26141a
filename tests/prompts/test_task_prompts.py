"""The prompts written for this project: enough of them, each once, of sane lengths, and readable by our loader."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from treespec.prompts import Prompt, read_prompts

REPOSITORY = Path(__file__).parents[2]
TASKS = REPOSITORY / "prompts" / "tasks"
FAMILIES = (
    "chat",
    "code",
    "instruction",
    "question_answering",
    "reasoning",
    "story",
    "summarising",
    "translation",
)
NUM_PROMPTS = 16
SHORTEST, LONGEST = 40, 700  # characters
LANGUAGES = (
    *("German", "French", "Spanish", "Italian", "Portuguese", "Dutch"),
    *("Swedish", "Polish", "Russian", "Japanese", "Chinese"),
)


def texts(family: str) -> list[str]:
    return [prompt.text for prompt in read_prompts(TASKS / f"{family}.json")]


def words(text: str) -> str:
    """What two prompts must not share: the text without case, spaces and signs."""
    return "".join(character for character in text.lower() if character.isalnum())


def test_every_family_is_there_and_no_other() -> None:
    assert sorted(path.stem for path in TASKS.glob("*.json")) == list(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_a_plain_list_as_the_artifacts_files_are(family: str) -> None:
    data = json.loads((TASKS / f"{family}.json").read_bytes().decode("utf-8"))
    assert read_prompts(TASKS / f"{family}.json") == tuple(Prompt(text) for text in data)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_fills_every_batch_of_the_paper(family: str) -> None:
    assert len({words(text) for text in texts(family)}) == len(texts(family))
    assert len(texts(family)) >= NUM_PROMPTS
    assert len(texts(family)) % NUM_PROMPTS == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_are_sane_and_differ(family: str) -> None:
    lengths = [len(text) for text in texts(family)]
    assert min(lengths) >= SHORTEST
    assert max(lengths) <= LONGEST
    assert len(set(lengths)) > NUM_PROMPTS // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_no_control_characters_and_no_space_at_either_end(family: str) -> None:
    for text in texts(family):
        assert all(character.isprintable() or character == "\n" for character in text), text
        assert text.strip(" ") == text
        assert text.lstrip() == text


def test_no_prompt_stands_in_two_families() -> None:
    counts = Counter(words(text) for family in FAMILIES for text in texts(family))
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_two_prompts_end_alike() -> None:
    """A prompt that only varies another one would be drafted from it."""
    endings = Counter(words(text)[-40:] for family in FAMILIES for text in texts(family))
    assert [text for text, count in endings.items() if count > 1] == []


def test_prompts_to_summarise_hold_the_text() -> None:
    for text in texts("summarising"):
        instruction, body, ending = text.split("\n\n")
        assert len(body) > 3 * len(instruction)
        assert ending == "Summary:"


def test_many_languages_are_translated() -> None:
    everything = "\n".join(texts("translation"))
    assert [language for language in LANGUAGES if language not in everything] == []


def test_every_family_is_described() -> None:
    readme = (TASKS / "README.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        lengths = [len(text) for text in texts(family)]
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{family}.json`")]
        assert row.endswith(f"| {min(lengths)} to {max(lengths)} |")


def test_every_question_of_reasoning_has_its_answer() -> None:
    readme = (TASKS / "README.md").read_text(encoding="utf-8")
    answers = readme.split("in its order:")[1].split("\n\n")[0]
    assert len(answers.split(";")) == len(texts("reasoning"))


def test_downloaded_sets_are_not_in_the_repository() -> None:
    assert "/paper/" in (REPOSITORY / "prompts" / ".gitignore").read_text().splitlines()
