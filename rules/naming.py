"""Names of scenarios and placements: an experiment's own for its own settings, which others are appended to.

``server_small-4_batchsize-tree_specinfer`` and ``offloading_small_8`` are the artifact's; every setting that changes
*what* is measured appends ``-<key>_<value>`` in the order of NAMED_SETTINGS. How *much* is measured (prompts taken,
repeats) never shows in a name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from rules.sweeps import AXES, Mode, ModelSize, Sweep, Variant
from treespec.config import Quantisation, Sampling

NAMED_SETTINGS = (
    *("size", "batch_size", "mode", "expansion", "drafters", "verifier", "sampling", "tree_layout"),
    *("offload", "quantisation"),
    *("prompts", "max_new_tokens", "ignore_eos", "max_tokens_per_batch", "batch_composition"),
)
_COMMON = set(NAMED_SETTINGS) & (Sweep.model_fields.keys() - {*AXES})
_OF_MODE = set(NAMED_SETTINGS) & (Mode.model_fields.keys() - {*AXES})


@dataclass(frozen=True)
class GridPoint:
    """A point of a sweep's grid, by AXES."""

    size: ModelSize
    batch_size: int
    mode: str
    prompts: str


def scenario_name(sweep: Sweep, point: GridPoint, settings: dict[str, str]) -> str:
    """The scenario's name with its ``settings``, which are those of ``named_settings``."""
    return f"{sweep.prefix}_{sweep.name_form.format(**asdict(point))}{_suffix(settings)}"


def placement_name(experiment: str, size: ModelSize, published: Sweep, variant: Variant) -> str:
    """The name of the job of one model size and variant."""
    theirs = _of_variant(_first(published.variants))
    further = {key: value for key, value in _of_variant(variant).items() if value != theirs[key]}
    return f"{experiment}-{size}{_suffix(further)}"


def named_settings(sweep: Sweep, published: Sweep, point: GridPoint, variant: Variant) -> dict[str, str]:
    """The settings of a scenario that are not the experiment's own, in the order of NAMED_SETTINGS."""
    mode = sweep.modes[point.mode]
    # A mode that the experiment does not have is told by its name; how it decodes is the platform's own affair.
    own_mode = published.modes.get(point.mode, mode)
    ours = _values(asdict(point)) | _of_mode(mode) | _of_variant(variant) | _common(sweep)
    theirs = _own_axes(published, point) | _of_mode(own_mode)
    theirs |= _of_variant(_first(published.variants)) | _common(published)
    return {key: ours[key] for key in NAMED_SETTINGS if ours[key] != theirs[key]}


def _own_axes(published: Sweep, point: GridPoint) -> dict[str, str]:
    """What a name says by itself: the point where the form tells it, else the first of the experiment."""
    first = GridPoint(
        size=published.sizes[0],
        batch_size=published.batch_sizes[0],
        mode=next(iter(published.modes)),
        prompts=published.prompt_sets[0],
    )
    return _values(asdict(first) | {axis: getattr(point, axis) for axis in published.told_axes})


def _first(variants: dict[str, Variant]) -> Variant:
    return next(iter(variants.values()))


def _suffix(settings: dict[str, str]) -> str:
    return "".join(f"-{key}_{value}" for key, value in settings.items())


def _of_variant(variant: Variant) -> dict[str, str]:
    return {"offload": _value(variant.offload), "quantisation": _value(variant.quantisation)}


def _of_mode(mode: Mode) -> dict[str, str]:
    return {key: _value(getattr(mode, key)) for key in _OF_MODE}


def _common(sweep: Sweep) -> dict[str, str]:
    return {key: _value(getattr(sweep, key)) for key in _COMMON}


def _values(fields: dict[str, Any]) -> dict[str, str]:
    return {key: _value(value) for key, value in fields.items()}


def _value(value: object) -> str:
    """A value as names hold it: what is not its default, joined by dots."""
    if isinstance(value, Quantisation):
        default = Quantisation.model_fields["group_size"].default
        return value.label if value.group_size == default else f"{value.label}.{value.group_size}"
    if isinstance(value, Sampling):
        chosen = value.model_dump(exclude_defaults=True)
        return ".".join(f"{key}.{_value(what)}" for key, what in chosen.items()) or "greedy"
    if isinstance(value, BaseModel):
        drafter = {"kind": getattr(value, "kind", ""), **value.model_dump(exclude_defaults=True)}
        return _value(tuple(drafter.values()))
    if isinstance(value, tuple):
        return ".".join(map(_value, value)) or "none"
    return str(value).lower()
