"""Mistral: LLaMA whose every layer may look through a sliding window (Jiang et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from treespec.model.families.llama import llama_spec
from treespec.model.spec import ConfigReader, ModelSpec

DEFAULT_WINDOW = 4096  # where config.json does not speak of one, as transformers has it


def mistral_spec(config: dict[str, Any], folder: Path) -> ModelSpec:
    """Facts of a Mistral checkpoint. Raises CheckpointError for variants the decoder would compute wrongly."""
    read = ConfigReader(config, folder)
    window = read.window(default=DEFAULT_WINDOW)
    kind = "full_attention" if window is None else "sliding_attention"
    if set(read.get("layer_types", default=[kind])) != {kind}:
        raise read.unsupported("layer_types", config["layer_types"], f"{kind} in every layer, or none given")
    spec = llama_spec(config, folder)
    windowed = frozenset() if window is None else frozenset(range(spec.num_layers))
    return replace(spec, biases=frozenset(), window=window, windowed_layers=windowed)
