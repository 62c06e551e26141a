"""Function-preserving enlargement of a LLaMA checkpoint: the same text at the cost of a larger model.

The residual stream keeps its original coordinates and is zero beyond them. Matrices that only read or compute
unused coordinates hold seeded noise; those that write the residual are zero outside the original block, and added
layers write nothing. RMSNorm divides by the root of a mean over more coordinates, so its weight takes the factor
sqrt(old width / new width), exact for powers of four.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from treespec.config import Inflation
from treespec.model.inflation.enlarging import Noise, enlarged, refuse_variants
from treespec.model.sources import Weights
from treespec.model.spec import ModelSpec


def inflate_llama(spec: ModelSpec, weights: Weights, inflation: Inflation) -> tuple[ModelSpec, dict[str, Tensor]]:
    """A larger specification and its weights; logits agree to rounding. Raises ConfigError for what it cannot keep."""
    refuse_variants({"biases": bool(spec.biases)})
    larger = replace(enlarged(spec, inflation), norm_eps=spec.norm_eps / inflation.width_factor)
    return larger, _Enlarger(spec, larger, weights).run()


class _Enlarger:
    """Enlarges tensor by tensor; noise comes from one seeded stream in a fixed order."""

    def __init__(self, old: ModelSpec, new: ModelSpec, weights: Weights) -> None:
        self.old, self.new, self.weights = old, new, weights
        self._noise = Noise()
        self._norm_factor = (old.hidden_size / new.hidden_size) ** 0.5

    def run(self) -> dict[str, Tensor]:
        """All tensors of the larger model, float32."""
        out = {
            "model.embed_tokens.weight": self._writer(self._old("model.embed_tokens.weight"), self.old.vocab_size),
            "model.norm.weight": self._norm(self._old("model.norm.weight")),
        }
        if not self.old.tie_embeddings:
            out["lm_head.weight"] = self._reader(self._old("lm_head.weight"), self.old.vocab_size)
        for layer in range(self.new.num_layers):
            out |= self._layer(layer)
        return out

    def _layer(self, index: int) -> dict[str, Tensor]:
        new, d, added = self.new, self.new.head_dim, index >= self.old.num_layers
        names = {
            "self_attn.q_proj": new.num_heads * d,
            "self_attn.k_proj": new.num_kv_heads * d,
            "self_attn.v_proj": new.num_kv_heads * d,
            "mlp.gate_proj": new.ffn_size,
            "mlp.up_proj": new.ffn_size,
        }
        prefix = f"model.layers.{index}."
        out: dict[str, Tensor] = {}
        for name, rows in names.items():
            out[f"{prefix}{name}.weight"] = self._reader(None if added else self._old(f"{prefix}{name}.weight"), rows)
        for name, columns in {"self_attn.o_proj": new.num_heads * d, "mlp.down_proj": new.ffn_size}.items():
            old = None if added else self._old(f"{prefix}{name}.weight")
            out[f"{prefix}{name}.weight"] = self._block(old, torch.zeros(new.hidden_size, columns))
        for name in ("input_layernorm", "post_attention_layernorm"):
            key = f"{prefix}{name}.weight"
            out[key] = self._norm(torch.ones(self.old.hidden_size) if added else self._old(key))
        return out

    def _old(self, name: str) -> Tensor:
        return self.weights[name][:].float()

    def _norm(self, weight_M: Tensor) -> Tensor:
        out = torch.zeros(self.new.hidden_size)
        out[: len(weight_M)] = weight_M * self._norm_factor
        return out

    def _reader(self, old: Tensor | None, num_rows: int) -> Tensor:
        """A matrix that reads the residual: its unused rows and columns may hold anything."""
        return self._block(old, self._noise.matrix(num_rows, self.new.hidden_size))

    def _writer(self, old: Tensor, num_rows: int) -> Tensor:
        return self._block(old, torch.zeros(num_rows, self.new.hidden_size))

    @staticmethod
    def _block(old: Tensor | None, out: Tensor) -> Tensor:
        if old is not None:
            out[: old.shape[0], : old.shape[1]] = old
        return out
