"""The base of every configuration model: frozen, and an unknown key is refused with the known ones named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class StrictModel(BaseModel):
    """Pydantic refuses unknown keys by itself, but does not say which keys there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := sorted(str(key) for key in data if key not in cls.model_fields)):
            raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; allowed: {', '.join(cls.model_fields)}")
        return data
