"""LLaMA family: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al. 2023).

Mistral and Qwen2 are the same decoder with other facts: ``mistral.py``, ``qwen2.py``.

Legend: B requests, N new tokens, M hidden, H query heads, G key/value heads, D head size, F FFN size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import ForwardBatch, attend
from treespec.model.families.rotary import read_rope
from treespec.model.families.windows import in_window
from treespec.model.sources import Sliceable, TensorSource
from treespec.model.spec import ConfigReader, ModelSpec, architecture_of
from treespec.model.staged import StagedDecoder
from treespec.model.weights import Shares, WeightSource
from treespec.ops.linear import Linear
from treespec.ops.rope import RopeTable, rotate

_BIASED = {
    "attention_bias": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp_bias": ("gate_proj", "up_proj", "down_proj"),
}


def llama_spec(config: dict[str, Any], folder: Path) -> ModelSpec:
    """Facts of a LLaMA checkpoint. Raises CheckpointError for variants this decoder would compute wrongly."""
    read = ConfigReader(config, folder)
    read.require_only({"hidden_act": "silu"})
    hidden_size, max_positions = read.size("hidden_size"), read.size("max_position_embeddings", default=2048)
    num_heads, num_kv_heads, head_dim = read.heads(hidden_size)
    if head_dim % 2:
        raise read.contradiction("head_dim", head_dim, "an even number, for rotary positions")
    rope_base, rope_scaling = read_rope(read, max_positions)
    return ModelSpec(
        architecture=architecture_of(config, folder),
        vocab_size=read.size("vocab_size"),
        hidden_size=hidden_size,
        ffn_size=read.size("intermediate_size"),
        num_layers=read.size("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        norm_eps=float(read.get("rms_norm_eps", default=1e-6)),
        max_positions=max_positions,
        tie_embeddings=bool(read.get("tie_word_embeddings", default=False)),
        eos_token_ids=read.eos_token_ids(),
        biases=frozenset(name for key, names in _BIASED.items() if read.get(key, default=False) for name in names),
        rope_base=rope_base,
        rope_scaling=rope_scaling,
    )


def read_llama_weights(spec: ModelSpec, checkpoint: TensorSource) -> dict[str, Sliceable]:
    """All tensors under their checkpoint names, shapes checked."""
    m, f, d = spec.hidden_size, spec.ffn_size, spec.head_dim
    maps = {
        "self_attn.q_proj": (spec.num_heads * d, m),
        "self_attn.k_proj": (spec.num_kv_heads * d, m),
        "self_attn.v_proj": (spec.num_kv_heads * d, m),
        "self_attn.o_proj": (m, spec.num_heads * d),
        "mlp.gate_proj": (f, m),
        "mlp.up_proj": (f, m),
        "mlp.down_proj": (m, f),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab_size, m), "model.norm.weight": (m,)}
    for layer in range(spec.num_layers):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + "input_layernorm.weight": (m,), prefix + "post_attention_layernorm.weight": (m,)}
        shapes |= spec.parameters(prefix, maps)
    if spec.tie_embeddings:
        checkpoint.ignore("lm_head.weight")
    else:
        shapes["lm_head.weight"] = (spec.vocab_size, m)
    return {name: checkpoint.take(name, shape) for name, shape in shapes.items()}


@dataclass(frozen=True)
class _Layer:
    attention_norm_M: Tensor
    qkv: Linear
    attention_out: Linear
    ffn_norm_M: Tensor
    gate_up: Linear
    down: Linear


def _layer(source: WeightSource, shares: Shares, prefix: str) -> _Layer:
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return _Layer(
        attention_norm_M=source.tensor(prefix + "input_layernorm.weight"),
        qkv=source.columns(
            *(attention + name for name in ("q_proj", "k_proj", "v_proj")),
            rows=(shares.query, shares.key_value, shares.key_value),
        ),
        attention_out=source.rows(attention + "o_proj", shares.query),
        ffn_norm_M=source.tensor(prefix + "post_attention_layernorm.weight"),
        gate_up=source.columns(mlp + "gate_proj", mlp + "up_proj", rows=(shares.ffn, shares.ffn)),
        down=source.rows(mlp + "down_proj", shares.ffn),
    )


class LlamaDecoder(StagedDecoder):
    """The decoder over slots; weights are fused (q with k and v, gate with up) and packed at construction."""

    def _load(self, source: WeightSource, shares: Shares) -> None:
        spec, mesh = self.spec, self.mesh
        embedding = "model.embed_tokens"
        if mesh.is_first_stage:
            self._embedding_VM = source.table(embedding, shares.vocabulary)
        self._layers = [_layer(source, shares, f"model.layers.{index}.") for index in mesh.layers(spec.num_layers)]
        if mesh.is_last_stage:
            self._norm_M = source.tensor("model.norm.weight")
            self._head = source.head("lm_head", shares.vocabulary, embedding if spec.tie_embeddings else None)
        self._rope = RopeTable.build(
            spec.max_positions, spec.head_dim, spec.rope_base, self.dtype, self.device, spec.rope_scaling
        )
        self._is_windowed = [index in spec.windowed_layers for index in mesh.layers(spec.num_layers)]
        self._window = spec.window if any(self._is_windowed) else None  # nothing to compute on a stage without one

    def _embed(self, batch: ForwardBatch) -> Tensor:
        return self._embedded(batch.ids_BN, self._embedding_VM)

    def _run_layers(self, x_BNM: Tensor, batch: ForwardBatch, pool: KVCachePool) -> Tensor:
        cos, sin = self._rope.at(batch.positions_BN)
        windowed = batch if self._window is None else in_window(batch, self._window, self.dtype)
        for index, layer in enumerate(self._layers):
            seen = windowed if self._is_windowed[index] else batch
            x_BNM = x_BNM + self._sum(self._attention(index, layer, x_BNM, cos, sin, seen, pool))
            x_BNM = x_BNM + self._sum(self._ffn(layer, x_BNM))
        return x_BNM

    def _logits(self, x_RM: Tensor) -> Tensor:
        return self._head(self._normed(x_RM, self._norm_M))

    def _normed(self, x: Tensor, weight_M: Tensor) -> Tensor:
        return F.rms_norm(x, (self.spec.hidden_size,), weight_M, self.spec.norm_eps)

    def _attention(
        self, index: int, layer: _Layer, x_BNM: Tensor, cos: Tensor, sin: Tensor, batch: ForwardBatch, pool: KVCachePool
    ) -> Tensor:
        H, G = len(self.mesh.heads(self.spec.num_heads)), len(self.mesh.kv_heads(self.spec.num_kv_heads))
        heads = layer.qkv(self._normed(x_BNM, layer.attention_norm_M)).unflatten(-1, (H + 2 * G, self.spec.head_dim))
        # Queries and keys are rotated in one call: they are adjacent heads of the fused projection.
        rotated = rotate(heads[:, :, : H + G], cos, sin)
        out_BNHD = attend(index, rotated[:, :, :H], rotated[:, :, H:], heads[:, :, H + G :], batch, pool)
        return layer.attention_out(out_BNHD.flatten(2))

    def _ffn(self, layer: _Layer, x_BNM: Tensor) -> Tensor:
        gate_BNF, up_BNF = layer.gate_up(self._normed(x_BNM, layer.ffn_norm_M)).chunk(2, dim=-1)
        return layer.down(F.silu(gate_BNF) * up_BNF)
