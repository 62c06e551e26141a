"""The base of everything that is read from configuration: unknown keys are refused, and truth values for numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


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
