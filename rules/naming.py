"""Names of scenarios and placements: the artifact's own for its own settings, which others are appended to.

``server_small-4_batchsize-tree_specinfer`` and ``offloading_small_8`` are the artifact's; every setting that changes
*what* is measured appends ``-<key>_<value>`` in the order of NAMED_SETTINGS. How *much* is measured (prompts taken,
repeats) never shows in a name.
"""

from __future__ import annotations

from pydantic import BaseModel

from rules.settings import Mode, ModelSize, ModeName, Sweep, Variant
from treespec.config import Quantisation

NAMED_SETTINGS = (
    *("mode", "expansion", "drafters", "offload", "quantisation"),
    *("prompts", "max_new_tokens", "ignore_eos", "max_tokens_per_batch", "batch_composition"),
)


def scenario_name(sweep: Sweep, size: ModelSize, batch_size: int, mode_name: ModeName, settings: dict[str, str]) -> str:
    """The scenario's name with its ``settings``, which are those of ``named_settings``."""
    artifacts = sweep.name_form.format(size=size, batch_size=batch_size, mode=mode_name)
    return f"{sweep.prefix}_{artifacts}{_suffix(settings)}"


def placement_name(experiment: str, size: ModelSize, published: Sweep, variant: Variant) -> str:
    """The name of the job of one model size and variant."""
    theirs = _variant_settings(_first(published.variants))
    further = {key: value for key, value in _variant_settings(variant).items() if value != theirs[key]}
    return f"{experiment}-{size}{_suffix(further)}"


def named_settings(sweep: Sweep, published: Sweep, mode_name: ModeName, variant: Variant) -> dict[str, str]:
    """The settings of a scenario that are not the artifact's own, in the order of NAMED_SETTINGS."""
    own_mode = mode_name if "{mode}" in sweep.name_form else next(iter(published.modes))
    ours = {"mode": mode_name} | _drafting(sweep.modes[mode_name]) | _variant_settings(variant) | _common(sweep)
    # A mode that the experiment does not have is told by its name; how it drafts is the platform's own affair.
    own_drafting = _drafting(published.modes.get(mode_name, sweep.modes[mode_name]))
    theirs = {"mode": own_mode} | own_drafting | _variant_settings(_first(published.variants)) | _common(published)
    return {key: ours[key] for key in NAMED_SETTINGS if ours[key] != theirs[key]}


def _first(variants: dict[str, Variant]) -> Variant:
    return next(iter(variants.values()))


def _suffix(settings: dict[str, str]) -> str:
    return "".join(f"-{key}_{value}" for key, value in settings.items())


def _variant_settings(variant: Variant) -> dict[str, str]:
    return {"offload": _value(variant.offload), "quantisation": _value(variant.quantisation)}


def _drafting(mode: Mode) -> dict[str, str]:
    return {"expansion": _value(mode.expansion), "drafters": _value(mode.drafters)}


def _common(sweep: Sweep) -> dict[str, str]:
    return {key: _value(getattr(sweep, key)) for key in NAMED_SETTINGS if key in Sweep.model_fields}


def _value(value: object) -> str:
    """A value as names hold it: what is not its default, joined by dots."""
    if isinstance(value, Quantisation):
        default = Quantisation.model_fields["group_size"].default
        return value.label if value.group_size == default else f"{value.label}.{value.group_size}"
    if isinstance(value, BaseModel):
        chosen = {"kind": getattr(value, "kind", ""), **value.model_dump(exclude_defaults=True)}
        return _value(tuple(chosen.values()))
    if isinstance(value, tuple):
        return ".".join(map(_value, value)) or "none"
    return str(value).lower()
