"""What configurations say of a family's variants: older and newer forms, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.tests.checkpoints import TinyLlama, write_checkpoint
from engine.tests.decoding import load
from treespec.errors import CheckpointError, TreespecError
from treespec.model.families.registry import FAMILIES
from treespec.model.spec import ModelSpec
from treespec.ops.rope import LinearScaling, Llama3Scaling

FOLDER = Path("folder")
TINY = TinyLlama(hidden_size=16, ffn_size=16, num_layers=3, num_heads=2, num_kv_heads=2, head_dim=8)
OPT = {"vocab_size": 8, "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2} | {
    "max_position_embeddings": 16,
    "architectures": ["OPTForCausalLM"],
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = Llama3Scaling(8.0, 1.0, 4.0, 8192)


def spec_of(architecture: str, *without: str, **settings: Any) -> ModelSpec:
    name = f"{architecture}ForCausalLM"
    plain = OPT if architecture == "OPT" else TINY.config() | {"architectures": [name]}
    config = {key: value for key, value in (plain | settings).items() if key not in without}
    return FAMILIES.get(name).spec(config, FOLDER)


@pytest.mark.parametrize(
    ("settings", "base", "scaling"),
    [
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}}, 5e5, SCALED),
        ({"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8192, "rope_theta": 5e5}}, 5e5, SCALED),
        ({"rope_parameters": LLAMA3 | {"rope_theta": 7.0}, "original_max_position_embeddings": 8192}, 7.0, SCALED),
        ({"rope_scaling": LLAMA3, "max_position_embeddings": 8192}, 10000.0, SCALED),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 10000.0, LinearScaling(2)),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}}, 9.0, LinearScaling(2.0)),
        ({"rope_scaling": {"type": "default"}, "rope_theta": 9.0}, 9.0, None),
        ({"rope_scaling": None, "rope_parameters": None}, 10000.0, None),
    ],
)
@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen2"])
def test_rotation_is_read_in_all_forms(architecture: str, settings: dict[str, Any], base: float, scaling: Any) -> None:
    without = () if "rope_theta" in settings else ("rope_theta",)
    spec = spec_of(architecture, *without, **settings)
    assert (spec.rope_base, spec.rope_scaling) == (base, scaling)


@pytest.mark.parametrize(
    ("architecture", "settings", "window", "layers"),
    [
        ("Mistral", {}, 4096, {0, 1, 2}),
        ("Mistral", {"sliding_window": 7}, 7, {0, 1, 2}),
        ("Mistral", {"sliding_window": None}, None, set()),
        ("Mistral", {"sliding_window": 7, "layer_types": ["sliding_attention"] * 3}, 7, {0, 1, 2}),
        ("Qwen2", {"sliding_window": 7}, None, set()),
        ("Qwen2", {"sliding_window": 7, "use_sliding_window": False, "max_window_layers": 0}, None, set()),
        ("Qwen2", {"sliding_window": 7, "use_sliding_window": True}, 7, set()),
        ("Qwen2", {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 1}, 7, {1, 2}),
        ("Qwen2", {"use_sliding_window": True, "max_window_layers": 0}, 4096, {0, 1, 2}),
        (
            "Qwen2",
            {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 0}
            | {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            7,
            {1},
        ),
        ("Llama", {"sliding_window": 7}, None, set()),
    ],
    ids=str,
)
def test_windows_are_where_the_configuration_puts_them(
    architecture: str, settings: dict[str, Any], window: int | None, layers: set[int]
) -> None:
    spec = spec_of(architecture, **settings)
    assert (spec.window, spec.windowed_layers) == (window, layers)


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen2", "OPT"])
def test_names_of_dtypes_do_not_matter(architecture: str, key: str) -> None:
    assert spec_of(architecture, **{key: "bfloat16"}) == spec_of(architecture)


MIXED = ["full_attention", "sliding_attention", "full_attention"]
REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("Llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["rope scaling", "yarn", "linear", "llama3"]),
    ("Llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, ["rope scaling", "dynamic"]),
    ("Qwen2", {"rope_parameters": {"rope_type": "longrope"}}, ["rope scaling", "longrope"]),
    ("Llama", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, ["rope scaling", "one for all layers"]),
    ("Llama", {"rope_scaling": {"type": "linear"}}, ["rope scaling", "linear with factor above 0"]),
    ("Llama", {"rope_scaling": {"type": "linear", "factor": 0}}, ["rope scaling", "'factor': 0"]),
    ("Llama", {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, ["low_freq_factor below high_freq_factor"]),
    ("Llama", {"rope_scaling": "linear"}, ["rope_scaling", "an object"]),
    ("Llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5", "1.0"]),
    ("Llama", {"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
    ("Mistral", {"hidden_act": "relu2"}, ["hidden_act", "relu2", "silu"]),
    ("OPT", {"activation_function": "gelu"}, ["activation_function", "gelu", "relu"]),
    ("OPT", {"layer_norm_elementwise_affine": False}, ["layer_norm_elementwise_affine", "False", "True"]),
    ("Mistral", {"layer_types": MIXED}, ["layer_types", "sliding_attention in every layer"]),
    ("Qwen2", {"layer_types": MIXED}, ["layer_types", "only with use_sliding_window"]),
    ("Qwen2", {"layer_types": MIXED[:2]}, ["layer_types", "3 of full_attention, sliding_attention"]),
    ("Qwen2", {"layer_types": ["chunked_attention"] * 3}, ["layer_types", "chunked_attention"]),
    ("Llama", {"num_key_value_heads": 3}, ["num_key_value_heads", "3", "a divisor of num_attention_heads 2"]),
    (
        "Llama",
        {"head_dim": None, "num_attention_heads": 3, "num_key_value_heads": 1},
        ["num_attention_heads", "a divisor of hidden_size 16"],
    ),
    ("Llama", {"head_dim": 7}, ["head_dim", "an even number"]),
    ("Llama", {"hidden_size": "16"}, ["hidden_size", "a whole number, at least 1"]),
    ("Llama", {"num_hidden_layers": 0}, ["num_hidden_layers", "0", "at least 1"]),
    ("Mistral", {"sliding_window": -1}, ["sliding_window", "-1", "at least 1"]),
    ("OPT", {"hidden_size": 15}, ["num_attention_heads", "a divisor of hidden_size 15"]),
]


@pytest.mark.parametrize(("architecture", "settings", "told"), REFUSED, ids=str)
def test_what_would_be_computed_wrongly_is_refused(
    architecture: str, settings: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(CheckpointError) as caught:
        spec_of(architecture, **settings)
    line = str(caught.value)
    assert "\n" not in line
    for words in [*told, "folder/config.json"]:
        assert words in line


def test_unsupported_architecture_names_the_supported_ones() -> None:
    with pytest.raises(TreespecError, match=r"'GemmaForCausalLM'.*Llama.*Mistral.*OPT.*Qwen2ForCausalLM"):
        FAMILIES.get("GemmaForCausalLM")


BIAS = "model.layers.0.self_attn.q_proj.bias"


@pytest.mark.parametrize(
    ("config", "biased", "told"),
    [
        ({"attention_bias": True}, False, f"lacks tensor '{BIAS}'"),
        ({}, True, f"tensors that this architecture does not have.*{BIAS}"),
        ({"architectures": ["Qwen2ForCausalLM"]}, False, f"lacks tensor '{BIAS}'"),
        ({"architectures": ["MistralForCausalLM"], "attention_bias": True}, True, f"does not have.*{BIAS}"),
        ({"head_dim": 4}, False, r"q_proj.weight' does not fit config.json.*shape \(16, 16\).*shape \(8, 16\)"),
        ({"tie_word_embeddings": False}, False, "lacks tensor 'lm_head.weight'"),
    ],
    ids=str,
)
def test_configuration_that_contradicts_the_tensors_is_told(
    tmp_path: Path, config: dict[str, Any], biased: bool, told: str
) -> None:
    folder = write_checkpoint(tmp_path, TINY.with_(tied=True))
    if biased:
        save_file(load_file(folder / "model.safetensors") | {BIAS: torch.zeros(16)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    with pytest.raises(CheckpointError, match=told):
        load(folder)
