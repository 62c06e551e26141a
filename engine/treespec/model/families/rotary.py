"""What a configuration says of rotary positions: base and scaling, in the older and the newer form."""

from __future__ import annotations

from typing import Any

from treespec.model.spec import ConfigReader
from treespec.ops.rope import LinearScaling, Llama3Scaling, RopeScaling

NUMBERS = {"default": (), "linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
"""What each type is described by."""
DEFAULT_BASE = 10000.0


def read_rope(read: ConfigReader, max_positions: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling. Raises CheckpointError for types that are not computed here (yarn, dynamic, longrope, ...).

    Older configurations hold ``rope_theta`` and ``rope_scaling``, newer ones both in ``rope_parameters``.
    """
    newer = _object(read, "rope_parameters")
    parameters = _object(read, "rope_scaling") or newer
    part = parameters.get("partial_rotary_factor", read.get("partial_rotary_factor", default=1.0))
    if part != 1.0:
        raise read.unsupported("partial_rotary_factor", part, 1.0)
    base = parameters.get("rope_theta") or newer.get("rope_theta") or read.get("rope_theta", default=DEFAULT_BASE)
    return float(base), _scaling(read, parameters, max_positions)


def _scaling(read: ConfigReader, parameters: dict[str, Any], max_positions: int) -> RopeScaling | None:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    is_by_layer = any(isinstance(value, dict) for value in parameters.values())
    if is_by_layer or kind not in NUMBERS or not all(_is_positive(parameters.get(key)) for key in NUMBERS[kind]):
        forms = [f"{kind} with {', '.join(keys)} above 0" if keys else kind for kind, keys in NUMBERS.items()]
        raise read.unsupported("rope scaling", parameters, "one for all layers: " + "; ".join(forms))
    if kind == "linear":
        return LinearScaling(parameters["factor"])
    if kind == "llama3":
        factor, slow, fast = (parameters[key] for key in NUMBERS[kind])
        if slow >= fast:
            raise read.contradiction("rope scaling", parameters, "low_freq_factor below high_freq_factor")
        # Where the positions of the first training stand depends on what wrote the file.
        original = read.get("original_max_position_embeddings", default=None)
        original = original or parameters.get("original_max_position_embeddings", max_positions)
        return Llama3Scaling(factor, slow, fast, int(original))
    return None


def _object(read: ConfigReader, key: str) -> dict[str, Any]:
    value = read.get(key, default={})
    if not isinstance(value, dict):
        raise read.unsupported(key, value, "an object")
    return value


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
