"""OPT family: LayerNorm, learned positions, biases, ReLU (Zhang et al. 2022).

Legend: B requests, N new tokens, M hidden, E width of the token tables, H heads, D head size, F FFN size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import ForwardBatch, attend
from treespec.model.sources import Sliceable, TensorSource
from treespec.model.spec import ConfigReader, ModelSpec, architecture_of
from treespec.model.staged import StagedDecoder
from treespec.model.weights import Shares, WeightSource
from treespec.ops.linear import Linear

ROOT = "model.decoder."
POSITION_OFFSET = 2  # row of the position table that position 0 uses
_ONLY = {"activation_function": "relu", "layer_norm_elementwise_affine": True}
_ATTENTION_MAPS = ("q_proj", "k_proj", "v_proj", "out_proj")


def opt_spec(config: dict[str, Any], folder: Path) -> ModelSpec:
    """Facts of an OPT checkpoint. Raises CheckpointError for variants this decoder would compute wrongly."""
    read = ConfigReader(config, folder)
    read.require_only(_ONLY)
    hidden_size = read.size("hidden_size")
    num_heads, _, _ = read.heads(hidden_size)
    table_size = read.size("word_embed_proj_dim", default=hidden_size)
    norm_first = bool(read.get("do_layer_norm_before", default=True))
    return ModelSpec(
        architecture=architecture_of(config, folder),
        vocab_size=read.size("vocab_size"),
        hidden_size=hidden_size,
        ffn_size=read.size("ffn_dim"),
        num_layers=read.size("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        norm_eps=1e-5,
        max_positions=read.size("max_position_embeddings"),
        tie_embeddings=bool(read.get("tie_word_embeddings", default=True)),
        eos_token_ids=read.eos_token_ids(),
        biases=frozenset((*_ATTENTION_MAPS, "fc1", "fc2")) if read.get("enable_bias", default=True) else frozenset(),
        projected_size=None if table_size == hidden_size else table_size,
        norm_first=norm_first,
        final_norm=norm_first and not read.get("_remove_final_layer_norm", default=False),
    )


def read_opt_weights(spec: ModelSpec, checkpoint: TensorSource) -> dict[str, Sliceable]:
    """All tensors under their names in newer checkpoints, shapes checked."""
    m, f, e = spec.hidden_size, spec.ffn_size, spec.projected_size or spec.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        ROOT + "embed_tokens.weight": (spec.vocab_size, e),
        ROOT + "embed_positions.weight": (spec.max_positions + POSITION_OFFSET, m),
    }
    if spec.projected_size is not None:
        shapes |= {ROOT + "project_in.weight": (m, e), ROOT + "project_out.weight": (e, m)}
    if spec.final_norm:
        shapes |= _norm_shapes(ROOT + "final_layer_norm", m)
    maps = {f"self_attn.{name}": (m, m) for name in _ATTENTION_MAPS} | {"fc1": (f, m), "fc2": (m, f)}
    for layer in range(spec.num_layers):
        prefix = f"{ROOT}layers.{layer}."
        shapes |= spec.parameters(prefix, maps)
        shapes |= _norm_shapes(prefix + "self_attn_layer_norm", m) | _norm_shapes(prefix + "final_layer_norm", m)
    if spec.tie_embeddings:
        checkpoint.ignore("lm_head.weight")
    else:
        shapes["lm_head.weight"] = (spec.vocab_size, e)
    # Some of the published files hold the inner model, whose names are one word shorter.
    stored_root = ROOT if ROOT + "embed_tokens.weight" in checkpoint else ROOT.removeprefix("model.")
    return {name: checkpoint.take(name.replace(ROOT, stored_root), shape) for name, shape in shapes.items()}


def _norm_shapes(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


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

    def ffn(self, x: Tensor) -> Tensor:
        """This rank's share of its result."""
        return self.down(F.relu(self.up(x)))


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
        self._project_in = self._project_out = self._final_norm = None
        if mesh.is_first_stage:
            self._embedding_VE = source.table(embedding, shares.vocabulary)
            self._positions_PM = source.tensor(ROOT + "embed_positions.weight")[POSITION_OFFSET:]
            self._project_in = self._projection(source, "project_in")
        self._layers = [_layer(source, shares, f"{ROOT}layers.{index}.") for index in mesh.layers(spec.num_layers)]
        if mesh.is_last_stage:
            self._final_norm = _norm(source, ROOT + "final_layer_norm") if spec.final_norm else None
            self._project_out = self._projection(source, "project_out")
            self._head = source.head("lm_head", shares.vocabulary, embedding if spec.tie_embeddings else None)

    def _projection(self, source: WeightSource, name: str) -> Linear | None:
        """Between the width of the token tables and the hidden one; small, so every rank holds all of it."""
        return None if self.spec.projected_size is None else source.columns(ROOT + name)

    def _embed(self, batch: ForwardBatch) -> Tensor:
        x_BNE = self._embedded(batch.ids_BN, self._embedding_VE)
        x_BNM = x_BNE if self._project_in is None else self._project_in(x_BNE)
        return x_BNM + F.embedding(batch.positions_BN, self._positions_PM)

    def _run_layers(self, x_BNM: Tensor, batch: ForwardBatch, pool: KVCachePool) -> Tensor:
        for index, layer in enumerate(self._layers):
            x_BNM = self._added(x_BNM, layer.attention_norm, partial(self._attention, index, layer, batch, pool))
            x_BNM = self._added(x_BNM, layer.ffn_norm, layer.ffn)
        return x_BNM

    def _added(self, x_BNM: Tensor, norm: _Norm, part: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual after a part of a layer that normalises what it reads, or what it leaves (opt-350m)."""
        if self.spec.norm_first:
            return x_BNM + self._sum(part(norm(x_BNM)))
        return norm(x_BNM + self._sum(part(x_BNM)))

    def _logits(self, x_RM: Tensor) -> Tensor:
        x_RM = x_RM if self._final_norm is None else self._final_norm(x_RM)
        return self._head(x_RM if self._project_out is None else self._project_out(x_RM))

    def _attention(self, index: int, layer: _Layer, batch: ForwardBatch, pool: KVCachePool, x_BNM: Tensor) -> Tensor:
        H = len(self.mesh.heads(self.spec.num_heads))
        heads = layer.qkv(x_BNM).unflatten(-1, (3 * H, self.spec.head_dim))
        out_BNHD = attend(index, heads[:, :, :H], heads[:, :, H : 2 * H], heads[:, :, 2 * H :], batch, pool)
        return layer.attention_out(out_BNHD.flatten(2))
