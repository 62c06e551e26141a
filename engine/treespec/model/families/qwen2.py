"""Qwen2 and Qwen2.5: LLaMA with biases on query, key and value, and windows in some layers (Yang et al. 2024)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from treespec.model.families.llama import llama_spec
from treespec.model.spec import ConfigReader, ModelSpec

BIASES = frozenset({"q_proj", "k_proj", "v_proj"})
LAYER_TYPES = {"full_attention": False, "sliding_attention": True}  # whether they have a window


def qwen2_spec(config: dict[str, Any], folder: Path) -> ModelSpec:
    """Facts of a Qwen2 checkpoint. Raises CheckpointError for variants the decoder would compute wrongly."""
    read = ConfigReader(config, folder)
    spec = llama_spec(config, folder)
    window = read.window(default=4096) if read.get("use_sliding_window", default=False) else None
    return replace(spec, biases=BIASES, window=window, windowed_layers=_windowed_layers(read, spec.num_layers, window))


def _windowed_layers(read: ConfigReader, num_layers: int, window: int | None) -> frozenset[int]:
    """Named layer by layer in newer configurations, all from ``max_window_layers`` on in older ones."""
    kinds = read.get("layer_types", default=None)
    if kinds is None:
        first = read.size("max_window_layers", default=28, at_least=0)
        return frozenset() if window is None else frozenset(range(first, num_layers))
    if len(kinds) != num_layers or not set(kinds) <= LAYER_TYPES.keys():
        raise read.contradiction("layer_types", kinds, f"{num_layers} of {', '.join(LAYER_TYPES)}")
    windowed = frozenset(layer for layer, kind in enumerate(kinds) if LAYER_TYPES[kind])
    if windowed and window is None:
        raise read.contradiction("layer_types", kinds, "sliding_attention only with use_sliding_window")
    return windowed
