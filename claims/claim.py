"""Claims as data: ``paper/claims.yaml`` as types, refused as a whole where it does not fit together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from claims.errors import ClaimError
from claims.measures import Best, Measure, StrictModel

PAPER_MODELS = "paper models"
Number = int | float
Range = Number | tuple[Number, ...]
SIDES = ("above", "below", "not_below")


class Rule(StrictModel):
    """How a verdict is reached from a measured value and its interval, and why so."""

    type: Literal["equal", "direction", "band"]
    above: float | None = Field(None, description="the whole interval lies above")
    below: float | None = Field(None, description="the whole interval lies below")
    not_below: float | None = Field(None, description="the interval reaches it or lies above")
    tolerance: float = Field(0, ge=0, description="of equality, or by how much a published range is widened")
    band_on: str | None = Field(None, description="hardware that the published range belongs to")
    band_with: Literal["paper models"] | None = Field(None, description="models that the published range belongs to")
    weights: Literal["trained", "any"] = Field(
        "trained", description="whether synthetic weights, whose agreement is chosen, can show it"
    )
    band_of: Literal["value", "sides"] = Field(
        "value", description="what must lie in the range: the statistic, or both of the values that it compares"
    )
    reason: str = Field(min_length=1)

    @property
    def has_band(self) -> bool:
        """Whether a published range is part of the rule, somewhere."""
        return self.type == "band" or self.band_on is not None or self.band_with is not None

    @model_validator(mode="after")
    def _a_direction_has_one_side(self) -> Self:
        given = [side for side in SIDES if getattr(self, side) is not None]
        if len(given) != (self.type == "direction"):
            raise ValueError(f"type {self.type} with {given or 'no side'}; a direction has one of {', '.join(SIDES)}")
        return self


class Part(StrictModel):
    """What is judged by itself; a claim holds if all its parts do."""

    name: str = Field(description="empty where the claim is one part")
    published: Range | str
    measure: Measure
    rule: Rule

    @property
    def published_values(self) -> tuple[float, ...]:
        """The published numbers; none where it is a word."""
        if isinstance(self.published, str):
            return ()
        return self.published if isinstance(self.published, tuple) else (self.published,)

    @model_validator(mode="after")
    def _what_is_compared_is_published(self) -> Self:
        if (self.rule.type == "equal" or self.rule.has_band) and not self.published_values:
            raise ValueError(f"published {self.published!r} is no number to compare with")
        if list(self.published_values) != sorted(self.published_values):
            raise ValueError(f"published {self.published!r}: a range goes from its lower to its upper end")
        if isinstance(self.measure, Best) and self.measure.places != self.published_values:
            raise ValueError(f"places {self.measure.places} are not the published {self.published!r}")
        return self


class Claim(StrictModel):
    """One claim of the paper."""

    id: str
    source: str
    statement: str
    kind: Literal["algorithmic", "hardware"]
    metric: str
    published: Range | str | dict[str, Range | str]
    parts: tuple[Part, ...]

    @model_validator(mode="before")
    @classmethod
    def _parts_take_over_what_they_do_not_change(cls, data: Any) -> Any:
        """``measure`` and ``rule`` of the claim, with what each entry of ``parts`` changes of them."""
        if not isinstance(data, Mapping):
            return data
        published = data.get("published")
        common = {key: data.get(key, {}) for key in ("measure", "rule")}
        parts = []
        for name, changes in (data.get("parts") or {"": {}}).items():
            values = published if not isinstance(published, Mapping) else published.get(name)
            parts.append({"name": name, "published": values, **_merged(common, changes or {})})
        return {key: value for key, value in data.items() if key not in common} | {"parts": parts}

    @model_validator(mode="after")
    def _every_published_part_is_judged(self) -> Self:
        names = {part.name for part in self.parts}
        if isinstance(self.published, dict) and names != self.published.keys():
            raise ValueError(f"parts {sorted(names)} of published {sorted(self.published)}")
        return self


class Hardware(StrictModel):
    """The paper's hardware class; hardware claims are judged on nothing else."""

    name: str
    description: str
    device: Literal["cpu", "cuda"]
    device_name: str = Field(description="regular expression that finds its devices' names")
    num_nodes: int
    devices_per_node: int


class Models(StrictModel):
    """A target and its draft, by the labels that platforms give them."""

    target: str
    draft: str


class ClaimSet(StrictModel):
    """The file."""

    paper_hardware: Hardware
    paper_models: tuple[Models, ...]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        ids = [claim.id for claim in self.claims]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"claims named twice: {', '.join(twice)}")
        for claim in self.claims:
            for part in claim.parts:
                if part.rule.band_on not in (None, self.paper_hardware.name):
                    raise ValueError(f"{claim.id}: band_on {part.rule.band_on!r}: not {self.paper_hardware.name!r}")
        return self


def load_claims(path: Path) -> ClaimSet:
    """The claims of a file. Raises ClaimError, one line with every place that does not fit."""
    data: Any = None
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ClaimSet.model_validate(data)
    except (OSError, UnicodeDecodeError) as error:
        raise ClaimError(f"{path}: claims cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ClaimError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ClaimError(f"{path}: claims refused: {_described(error, data)}") from error


def _described(error: ValidationError, data: Any) -> str:
    told = {"union_tag_not_found": "statistic is missing"}
    return "; ".join(f"{_place(i['loc'], data)}: {told.get(i['type'], i['msg'])}" for i in error.errors())


def _place(location: tuple[int | str, ...], data: Any) -> str:
    """Where in the file, a claim by its id."""
    match location:
        case ("claims", int(number), *rest):
            claim = data["claims"][number]
            name = claim.get("id", f"claim {number + 1}") if isinstance(claim, Mapping) else f"claim {number + 1}"
            return ".".join(map(str, (name, *rest)))
        case _:
            return ".".join(map(str, location)) or "file"


def _merged(common: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings in mappings, the values of ``changes`` above those of ``common``."""
    merged = dict(common)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
