"""Tiny LLaMA folders with seeded weights, written without the library whose results the engine is compared with.

Weights are scaled so that attention is sharp and logits are of order one: greedy text wanders instead of looping, and
a wrong mask, position or cache entry changes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

VOCAB_SIZE = 128
BOS_TOKEN_ID, EOS_TOKEN_ID = 1, 2
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
CHARACTERS = tuple(map(chr, [*range(0x20, 0x7F), *range(0xC0, 0xC0 + VOCAB_SIZE - 95 - len(SPECIAL_TOKENS))]))


@dataclass(frozen=True)
class TinyLlama:
    """Sizes of a random checkpoint; the seed fixes every weight."""

    hidden_size: int = 64
    ffn_size: int = 96
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 16
    tied: bool = False
    vocab_size: int = VOCAB_SIZE
    max_positions: int = 256
    rope_base: float = 10000.0
    seed: int = 0

    def with_(self, **changes: Any) -> TinyLlama:
        """The same with changes."""
        return replace(self, **changes)

    def config(self) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.ffn_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": self.rope_base,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tied,
            "bos_token_id": BOS_TOKEN_ID,
            "eos_token_id": EOS_TOKEN_ID,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every weight under its checkpoint name, float32."""
        draw = torch.Generator().manual_seed(self.seed)
        m, f, d = self.hidden_size, self.ffn_size, self.head_dim

        def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            return torch.randn(rows, columns, generator=draw) * gain / columns**0.5

        def norm() -> Tensor:
            return 1.0 + 0.1 * torch.randn(m, generator=draw)

        # A tied head would repeat the last token for ever if the layers did not outweigh the embedding.
        writing = 4.0 if self.tied else 2.0
        tensors = {"model.embed_tokens.weight": matrix(self.vocab_size, m), "model.norm.weight": norm()}
        for layer in range(self.num_layers):
            prefix = f"model.layers.{layer}."
            tensors |= {
                prefix + "input_layernorm.weight": norm(),
                prefix + "post_attention_layernorm.weight": norm(),
                prefix + "self_attn.q_proj.weight": matrix(self.num_heads * d, m, 1.5),
                prefix + "self_attn.k_proj.weight": matrix(self.num_kv_heads * d, m, 1.5),
                prefix + "self_attn.v_proj.weight": matrix(self.num_kv_heads * d, m),
                prefix + "self_attn.o_proj.weight": matrix(m, self.num_heads * d, writing),
                prefix + "mlp.gate_proj.weight": matrix(f, m),
                prefix + "mlp.up_proj.weight": matrix(f, m),
                prefix + "mlp.down_proj.weight": matrix(m, f, writing),
            }
        if not self.tied:
            tensors["lm_head.weight"] = matrix(self.vocab_size, m)
        return tensors


VARIANTS = {
    "mha": TinyLlama(),
    "gqa": TinyLlama(num_kv_heads=2, seed=1),
    "mqa": TinyLlama(num_kv_heads=1, num_layers=3, seed=2),
    "tied": TinyLlama(tied=True, seed=3),
    "tied-gqa": TinyLlama(tied=True, num_kv_heads=2, hidden_size=32, head_dim=8, seed=4),
    "wide-heads": TinyLlama(hidden_size=48, head_dim=16, seed=5),
    "narrow-heads": TinyLlama(hidden_size=64, head_dim=8, num_kv_heads=2, rope_base=500.0, seed=6),
}


def write_checkpoint(
    folder: Path, shape: TinyLlama, tensors: Mapping[str, Tensor] | None = None, **config: Any
) -> Path:
    """A whole model folder; ``tensors`` instead of the seeded ones, ``config`` over the shape's entries."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = shape.tensors() if tensors is None else dict(tensors)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(shape.config() | config), encoding="utf-8")
    character_tokenizer(shape.vocab_size).save(str(folder / "tokenizer.json"))
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special), encoding="utf-8")
    return folder


def character_tokenizer(vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """One token per character, so that texts and ids are easily told from each other."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS][:vocab_size])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def text_of(token_ids: list[int]) -> str:
    """The text whose encoding is ``token_ids`` (no special ones)."""
    return "".join(CHARACTERS[token_id - len(SPECIAL_TOKENS)] for token_id in token_ids)


def perturbed(tensors: Mapping[str, Tensor], noise: float, seed: int = 100) -> dict[str, Tensor]:
    """A draft that often agrees: every weight moved by ``noise`` times its own spread."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: tensor + noise * tensor.std() * torch.randn(tensor.shape, generator=draw)
        for name, tensor in tensors.items()
    }


def contrary(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A draft that never agrees: what the model it is made from finds likeliest, it finds least likely."""
    return dict(tensors) | {"lm_head.weight": -tensors["lm_head.weight"]}
