"""config.json of a converted model: the source's, with what the conversion changed."""

from __future__ import annotations

from typing import Any

import torch

from treespec.config import Quantisation
from treespec.model.quantised import quantisation_config
from treespec.model.spec import ModelSpec

COMMON_FIELDS = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "tie_word_embeddings": "tie_embeddings",
}
LLAMA_FIELDS = {
    "intermediate_size": "ffn_size",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "rms_norm_eps": "norm_eps",
}
OPT_FIELDS = {"ffn_dim": "ffn_size", "word_embed_proj_dim": "hidden_size"}  # projected tables are not inflated
FIELDS = {"OPTForCausalLM": OPT_FIELDS}
"""Key of config.json -> field of the specification; architectures that are not named are LLaMA's kin."""


def dtype_of(config: dict[str, Any]) -> str | None:
    """The type of the weights that a config.json names; newer ones call it ``dtype``."""
    said = config.get("dtype", config.get("torch_dtype"))
    return None if said is None else str(said).removeprefix("torch.")


def converted_config(
    config: dict[str, Any], spec: ModelSpec, dtype: torch.dtype, quantisation: Quantisation | None, *, is_inflated: bool
) -> dict[str, Any]:
    """A configuration from which ``spec`` is read again; sizes are touched only where they were inflated."""
    out = dict(config)
    if is_inflated:
        fields = COMMON_FIELDS | FIELDS.get(spec.architecture, LLAMA_FIELDS)
        out |= {key: getattr(spec, field) for key, field in fields.items()}
    key = "dtype" if "dtype" in config else "torch_dtype"
    out[key] = str(dtype).removeprefix("torch.")
    if quantisation is not None:
        out["quantization_config"] = quantisation_config(quantisation)
    return out
