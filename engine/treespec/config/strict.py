"""The base of everything read from configuration, which refuses unknown keys, and how its refusals are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class StrictModel(BaseModel):
    """Pydantic refuses unknown keys by itself, but does not say which keys there are, and takes true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := sorted(str(key) for key in data if key not in cls.model_fields)):
            raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; allowed: {', '.join(cls.model_fields)}")
        return data

    @model_validator(mode="before")
    @classmethod
    def _refuse_truth_for_numbers(cls, data: Any) -> Any:
        values = data.items() if isinstance(data, Mapping) else ()
        for name, value in values:
            types = _leaves(cls.model_fields[name].annotation) if name in cls.model_fields else ()
            if isinstance(value, bool) and bool not in types and {int, float} & {*types}:
                raise ValueError(f"{name} is {str(value).lower()}; allowed: a number")
        return data


def _leaves(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation is made of; the values of a Literal stand for their types."""
    parts = get_args(annotation)
    if not parts:
        return (annotation if isinstance(annotation, type) else type(annotation),)
    return tuple(leaf for part in parts for leaf in _leaves(part))


def describe_validation_error(error: ValidationError) -> str:
    """Every refused field in one line: its place, what is wrong, the value received; alike ones together."""
    places: dict[str, list[str]] = {}
    items = error.errors(include_url=False)
    refused = [item["loc"] for item in items]
    for item in items:
        # A list whose only entry was refused is told to be too short as well: that is no second mistake.
        inside = (loc for loc in refused if len(loc) > len(item["loc"]) and loc[: len(item["loc"])] == item["loc"])
        if item["type"] == "too_short" and any(inside):
            continue
        place = ".".join(str(part) for part in item["loc"]) or "(top level)"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "union_tag_not_found":
            message = "kind is missing; allowed: 'ssm', 'ngram', 'suffix', 'plugin'"
        received = "" if isinstance(item["input"], (dict, list, tuple)) else f" (received {item['input']!r})"
        places.setdefault(f"{message}{received}", []).append(place)
    return "; ".join(f"{', '.join(alike)}: {told}" for told, alike in places.items())
