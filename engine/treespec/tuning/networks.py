"""Trainable networks of the embedded models: the library's own classes, so that the checkpoints are ordinary ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from treespec.tuning.corpus import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID
from treespec.tuning.recipes import MAX_POSITIONS, VOCAB_SIZE, ModelShape


def new_network(family: str, shape: ModelShape) -> nn.Module:
    """A randomly initialised causal language model with tied embeddings, in float32."""
    return _BUILDERS[family](shape)


def _common(shape: ModelShape) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": PAD_TOKEN_ID,
        "bos_token_id": BOS_TOKEN_ID,
        "eos_token_id": EOS_TOKEN_ID,
        "tie_word_embeddings": True,
    }


def _llama(shape: ModelShape) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(intermediate_size=shape.ffn_size, rms_norm_eps=1e-5, **_common(shape))
    network: nn.Module = LlamaForCausalLM(config)
    return network


def _opt(shape: ModelShape) -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        ffn_dim=shape.ffn_size,
        word_embed_proj_dim=shape.hidden_size,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        **_common(shape),
    )
    network: nn.Module = OPTForCausalLM(config)
    return network


_BUILDERS = {"llama": _llama, "opt": _opt}
