"""Prompt files: JSON lists and JSON lines of strings or of objects, Spec-Bench's question file among them.

The forms and keys are described for users in docs/prompts.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treespec.errors import InputFileError

PROMPT_KEYS = ("prompt", "instruction", "question", "text", "turns")
"""Where an object holds its prompt, first choice first: Alpaca's rows have a `text` too, with the answer in it."""

FORMS = "a JSON list of strings or of objects with one of the keys " + ", ".join(PROMPT_KEYS) + ", or one such per line"

NO_UTF_8 = "prompt file is not UTF-8"


@dataclass(frozen=True)
class Prompt:
    """One entry of a prompt file."""

    text: str
    category: str | None = None
    num_unused_turns: int = 0  # of a conversation, those after the first


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in order. Raises InputFileError, which names entries by index from 0."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputFileError("prompt file cannot be read", where=str(path), received=error.strerror) from error
    return parse_prompts(content, str(path))


def parse_prompts(content: bytes, where: str) -> tuple[Prompt, ...]:
    """The same of a file's content; ``where`` it is from stands in errors."""
    entries = _entries_of(content, where)
    if not entries:
        raise InputFileError("prompt file is empty", where=where, allowed="at least one prompt")
    if isinstance(entries[0], dict):
        return _prompts_of_objects(entries, where)
    _refuse(where, "entries that are no strings", _indices(not isinstance(entry, str) for entry in entries), entries)
    return _readable([Prompt(entry) for entry in entries], where)


def _entries_of(content: bytes, where: str) -> list[Any]:
    text = _text_of(content, where)
    # No line of JSON lines begins with a bracket, as no prompt is a list.
    if not text.lstrip().startswith(('"', "{")):
        return _list_of(_parse(text, 1, where), where)
    # Not splitlines(): strings of JSON may hold the other characters that it takes for ends of lines.
    return [_parse(line, number, where) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _text_of(content: bytes, where: str) -> str:
    encoding = json.detect_encoding(content)  # of the widths that JSON once allowed
    if not encoding.startswith("utf-8"):
        raise InputFileError(NO_UTF_8, where=where, received=encoding.upper(), fix="save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        received = f"byte 0x{content[error.start]:02x} at position {error.start}"
        raise InputFileError(NO_UTF_8, where=where, received=received, fix="save it as UTF-8") from error


def _list_of(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputFileError("prompt file is of another form", where=where, received=_kind(data), allowed=FORMS)
    return data


def _parse(text: str, first_line: int, where: str) -> Any:
    """The JSON in ``text``, whose first line is this one of the file."""
    try:
        return json.loads(text)
    except RecursionError as error:
        received = "lists or objects too deep within one another"
        raise InputFileError("prompt file is of another form", where=where, received=received, allowed=FORMS) from error
    except json.JSONDecodeError as error:
        place = f"at line {first_line - 1 + error.lineno} column {error.colno}"
        is_comment = text.startswith(("//", "/*", "#"), error.pos)
        raise InputFileError(
            "prompt file is not valid JSON",
            where=where,
            received=f"a comment {place}" if is_comment else f"{error.msg} {place}",
            allowed=FORMS,
            fix="take the comment out: JSON has none" if is_comment else None,
        ) from error


def _prompts_of_objects(entries: Sequence[Any], where: str) -> tuple[Prompt, ...]:
    _refuse(where, "entries that are no objects", _indices(not isinstance(entry, dict) for entry in entries), entries)
    key = _common_key(entries, where)
    if key == "turns":
        wrong = _indices(not _is_conversation(entry[key]) for entry in entries)
        _refuse(where, "turns that are no list of strings", wrong, [entry[key] for entry in entries])
    else:
        wrong = _indices(not isinstance(entry[key], str) for entry in entries)
        _refuse(where, f"{key} is no string", wrong, [entry[key] for entry in entries])
    for name in ("category", "input") if key == "instruction" else ("category",):
        wrong = _indices(not isinstance(entry.get(name), str | None) for entry in entries)
        _refuse(where, f"{name} is no string", wrong, [entry.get(name) for entry in entries])
    _require_distinct_ids(entries, where)
    return _readable([_prompt_of(entry, key) for entry in entries], where)


def _common_key(entries: Sequence[dict[str, Any]], where: str) -> str:
    """The first of the keys that every entry has."""
    for key in PROMPT_KEYS:
        if all(key in entry for entry in entries):
            return key
    lacking = _indices(not any(key in entry for key in PROMPT_KEYS) for entry in entries)
    if lacking:
        received = f"entries without a prompt: indices {lacking}, the first with the keys {sorted(entries[lacking[0]])}"
    else:
        first = _first_key(entries[0])
        other = next(index for index, entry in enumerate(entries) if first not in entry)
        found = f"index 0 under {first}, index {other} under {_first_key(entries[other])}"
        received = f"entries that hold their prompts under different keys: {found}"
    raise InputFileError("prompt file is of another form", where=where, received=received, allowed=FORMS)


def _first_key(entry: dict[str, Any]) -> str:
    return next(key for key in PROMPT_KEYS if key in entry)


def _prompt_of(entry: dict[str, Any], key: str) -> Prompt:
    category = entry.get("category")
    if key == "turns":
        return Prompt(entry[key][0], category, len(entry[key]) - 1)
    # Alpaca's instructions may come with what they are to be done to.
    added = entry.get("input") if key == "instruction" else None
    has_more = added is not None and added.strip()
    return Prompt(f"{entry[key]}\n\n{added}" if has_more else entry[key], category)


def _is_conversation(turns: object) -> bool:
    return isinstance(turns, list) and bool(turns) and all(isinstance(turn, str) for turn in turns)


def _require_distinct_ids(entries: Sequence[dict[str, Any]], where: str) -> None:
    """Equal prompts are welcome, equal question ids are two files run into one."""
    counts = Counter(str(entry["question_id"]) for entry in entries if "question_id" in entry)
    if doubled := [name for name, count in counts.items() if count > 1]:
        raise InputFileError("question ids must be unique", where=where, received=f"more than once: {doubled}")


def _readable(prompts: Sequence[Prompt], where: str) -> tuple[Prompt, ...]:
    if wrong := not_unicode([prompt.text for prompt in prompts]):
        raise InputFileError("prompts are not valid Unicode", where=where, received=f"indices {wrong}")
    return tuple(prompts)


def not_unicode(texts: Sequence[str]) -> list[int]:
    """Indices of texts with halves of surrogate pairs, which JSON and Python can hold and no tokenizer can read."""
    return _indices(any("\ud800" <= character <= "\udfff" for character in text) for text in texts)


def _refuse(where: str, what: str, indices: list[int], values: Sequence[object]) -> None:
    """Raise InputFileError where any entry is named."""
    if indices:
        raise InputFileError(
            "prompt file is of another form",
            where=where,
            received=f"{what}: indices {indices}, the first {_kind(values[indices[0]])}",
            allowed=FORMS,
        )


def _indices(flags: Any) -> list[int]:
    return [index for index, flag in enumerate(flags) if flag]


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
