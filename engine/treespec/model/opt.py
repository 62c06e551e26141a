"""OPT family: LayerNorm, learned positions, biases, ReLU (Zhang et al. 2022).

Legend: B requests, N new tokens, M hidden, H heads, D head size, F FFN size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from treespec.kvcache.pool import KVCachePool
from treespec.model.checkpoint import Checkpoint, StoredTensor
from treespec.model.decoder import ForwardBatch, attend
from treespec.model.spec import ConfigReader, ModelSpec, architecture_of
from treespec.model.staged import StagedDecoder
from treespec.model.weights import Shares, WeightSource
from treespec.ops.linear import Linear

ROOT = "model.decoder."
POSITION_OFFSET = 2  # row of the position table that position 0 uses
_ONLY = {
    "do_layer_norm_before": True,
    "activation_function": "relu",
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
}


def opt_spec(config: dict[str, Any], folder: Path) -> ModelSpec:
    """Facts of an OPT checkpoint. Raises CheckpointError for variants this decoder would compute wrongly."""
    read = ConfigReader(config, folder)
    hidden, heads = int(read.need("hidden_size")), int(read.need("num_attention_heads"))
    read.require_only(_ONLY | {"word_embed_proj_dim": hidden})
    return ModelSpec(
        architecture=architecture_of(config, folder),
        vocab_size=int(read.need("vocab_size")),
        hidden_size=hidden,
        ffn_size=int(read.need("ffn_dim")),
        num_layers=int(read.need("num_hidden_layers")),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        norm_eps=1e-5,
        max_positions=int(read.need("max_position_embeddings")),
        tie_embeddings=bool(read.get("tie_word_embeddings", default=True)),
        eos_token_ids=read.eos_token_ids(),
    )


def read_opt_weights(spec: ModelSpec, checkpoint: Checkpoint) -> dict[str, StoredTensor]:
    """All tensors under their checkpoint names, shapes checked."""
    m, f = spec.hidden_size, spec.ffn_size
    shapes: dict[str, tuple[int, ...]] = {
        ROOT + "embed_tokens.weight": (spec.vocab_size, m),
        ROOT + "embed_positions.weight": (spec.max_positions + POSITION_OFFSET, m),
        ROOT + "final_layer_norm.weight": (m,),
        ROOT + "final_layer_norm.bias": (m,),
    }
    linears = {f"self_attn.{name}_proj": (m, m) for name in ("q", "k", "v", "out")} | {"fc1": (f, m), "fc2": (m, f)}
    for layer in range(spec.num_layers):
        prefix = f"{ROOT}layers.{layer}."
        for name, shape in linears.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{prefix}{name}.weight": (m,), f"{prefix}{name}.bias": (m,)}
    if spec.tie_embeddings:
        checkpoint.ignore("lm_head.weight")
    else:
        shapes["lm_head.weight"] = (spec.vocab_size, m)
    return {name: checkpoint.take(name, shape) for name, shape in shapes.items()}


@dataclass(frozen=True)
class _Norm:
    weight_M: Tensor
    bias_M: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight_M.shape, self.weight_M, self.bias_M)


@dataclass(frozen=True)
class _Layer:
    attention_norm: _Norm
    qkv: Linear
    attention_out: Linear
    ffn_norm: _Norm
    up: Linear
    down: Linear


def _norm(source: WeightSource, name: str) -> _Norm:
    return _Norm(source.tensor(name + ".weight"), source.tensor(name + ".bias"))


def _layer(source: WeightSource, shares: Shares, prefix: str) -> _Layer:
    attention = prefix + "self_attn."
    return _Layer(
        attention_norm=_norm(source, prefix + "self_attn_layer_norm"),
        qkv=source.columns(
            *(attention + name for name in ("q_proj", "k_proj", "v_proj")),
            rows=(shares.query, shares.key_value, shares.key_value),
        ),
        attention_out=source.rows(attention + "out_proj", shares.query),
        ffn_norm=_norm(source, prefix + "final_layer_norm"),
        up=source.columns(prefix + "fc1", rows=(shares.ffn,)),
        down=source.rows(prefix + "fc2", shares.ffn),
    )


class OptDecoder(StagedDecoder):
    """The decoder over slots; query, key and value projections are one fused, packed map."""

    def _load(self, source: WeightSource, shares: Shares) -> None:
        spec, mesh = self.spec, self.mesh
        embedding = ROOT + "embed_tokens"
        if mesh.is_first_stage:
            self._embedding_VM = source.tensor(embedding + ".weight", shares.vocabulary)
            self._positions_PM = source.tensor(ROOT + "embed_positions.weight")[POSITION_OFFSET:]
        if mesh.is_last_stage:
            self._norm = _norm(source, ROOT + "final_layer_norm")
            self._head = source.columns(embedding if spec.tie_embeddings else "lm_head", rows=(shares.vocabulary,))
        self._layers = [_layer(source, shares, f"{ROOT}layers.{index}.") for index in mesh.layers(spec.num_layers)]

    def _embed(self, batch: ForwardBatch) -> Tensor:
        return self._embedded(batch.ids_BN, self._embedding_VM) + F.embedding(batch.positions_BN, self._positions_PM)

    def _run_layers(self, x_BNM: Tensor, batch: ForwardBatch, pool: KVCachePool) -> Tensor:
        for index, layer in enumerate(self._layers):
            x_BNM = x_BNM + self._sum(self._attention(index, layer, x_BNM, batch, pool))
            x_BNM = x_BNM + self._sum(layer.down(F.relu(layer.up(layer.ffn_norm(x_BNM)))))
        return x_BNM

    def _logits(self, x_RM: Tensor) -> Tensor:
        return self._head(self._norm(x_RM))

    def _attention(self, index: int, layer: _Layer, x_BNM: Tensor, batch: ForwardBatch, pool: KVCachePool) -> Tensor:
        H = len(self.mesh.heads(self.spec.num_heads))
        heads = layer.qkv(layer.attention_norm(x_BNM)).unflatten(-1, (3 * H, self.spec.head_dim))
        out_BNHD = attend(index, heads[:, :, :H], heads[:, :, H : 2 * H], heads[:, :, 2 * H :], batch, pool)
        return layer.attention_out(out_BNHD.flatten(2))
