"""Checked access to the JSON of a record; whatever does not fit is damage, told in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

_LIMIT = 2**63  # beyond it a number is damage, and would not fit the tables' integers


class DamagedRecordError(Exception):
    """A record that breaks the format of docs/records.md; it becomes a status and never leaves the readers."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises FileNotFoundError, or DamagedRecordError for anything else that is wrong."""
    return parse_json_object(read_text(path), path.name)


def read_text(path: Path) -> str:
    """A file's text. Raises FileNotFoundError, or DamagedRecordError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedRecordError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DamagedRecordError(f"{path.name} is not UTF-8 text") from error


def parse_json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that a text consists of."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedRecordError(f"{where} is not valid JSON") from error
    if not isinstance(value, dict):
        raise DamagedRecordError(f"{where} is not a JSON object")
    return value


def object_of(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key."""
    value = parent.get(key)
    if not isinstance(value, dict):
        raise DamagedRecordError(f"{key} is not an object")
    return value


def objects_of(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under a key, empty where the key is absent."""
    value = parent.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DamagedRecordError(f"{key} is not a list of objects")
    return value


def text_of(parent: dict[str, Any], key: str) -> str:
    """The text under a key."""
    value = parent.get(key)
    if not isinstance(value, str):
        raise DamagedRecordError(f"{key} is not a text")
    return value


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _LIMIT


def text_or_none(parent: dict[str, Any], key: str) -> str | None:
    """The text under a key, None where it is null or absent."""
    return None if parent.get(key) is None else text_of(parent, key)


def count_of(parent: dict[str, Any], key: str) -> int:
    """The integer from 0 under a key."""
    value = parent.get(key)
    if not _is_count(value):
        raise DamagedRecordError(f"{key} is not a count")
    return value


def _is_duration(value: object) -> TypeGuard[int | float]:
    # NaN is in no interval; JSON's true is an int to Python.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LIMIT


def duration_of(parent: dict[str, Any], key: str) -> float:
    """The finite number from 0 under a key, in the unit that the key names."""
    value = parent.get(key)
    if not _is_duration(value):
        raise DamagedRecordError(f"{key} is not a duration")
    return float(value)


def durations_of(parent: dict[str, Any], key: str) -> tuple[float, ...]:
    """The list of finite numbers from 0 under a key."""
    value = parent.get(key)
    if not isinstance(value, list) or not all(map(_is_duration, value)):
        raise DamagedRecordError(f"{key} is not a list of durations")
    return tuple(map(float, value))


def counts_of(parent: dict[str, Any], key: str) -> tuple[int, ...]:
    """The list of integers from 0 under a key."""
    return _counts(parent.get(key), key)


def rows_of_counts(parent: dict[str, Any], key: str) -> tuple[tuple[int, ...], ...]:
    """The list of lists of integers from 0 under a key."""
    value = parent.get(key)
    if not isinstance(value, list):
        raise DamagedRecordError(f"{key} is not a list of lists of counts")
    return tuple(_counts(row, key) for row in value)


def _counts(value: object, key: str) -> tuple[int, ...]:
    # Lists are long; types and ends are looked at without a call per number.
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        raise DamagedRecordError(f"{key} is not a list of counts")
    if value and not 0 <= min(value) <= max(value) < _LIMIT:
        raise DamagedRecordError(f"{key} is not a list of counts")
    return tuple(value)
