"""Function-preserving enlargement of an OPT checkpoint.

LayerNorm subtracts a mean, so a residual padded with zeros would change. The residual is replicated instead: every
copy is the same, so mean and variance are the old ones. What writes the residual (tables, output projections and
their biases, norms) is replicated, what reads it reads the first copy; heads and FFN units are added whose outputs
are multiplied by zero, and added layers write nothing. The head reads the first copy too, so it is no longer tied.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from treespec.config import Inflation
from treespec.model.inflation.enlarging import Noise, enlarged, refuse_variants
from treespec.model.sources import Weights
from treespec.model.spec import ModelSpec

ROOT = "model.decoder."


def inflate_opt(spec: ModelSpec, weights: Weights, inflation: Inflation) -> tuple[ModelSpec, dict[str, Tensor]]:
    """A larger specification and its weights; logits agree to rounding. Raises ConfigError for what it cannot keep."""
    refuse_variants(
        {
            "projected token tables": spec.projected_size is not None,
            "norms after the sums": not spec.norm_first,
            "a missing final norm": not spec.final_norm,
            "missing biases": not spec.biases,
        }
    )
    larger = replace(enlarged(spec, inflation), tie_embeddings=False)
    return larger, _Enlarger(spec, larger, weights).run()


class _Enlarger:
    """Enlarges tensor by tensor; noise comes from one seeded stream in a fixed order."""

    def __init__(self, old: ModelSpec, new: ModelSpec, weights: Weights) -> None:
        self.old, self.new, self.weights = old, new, weights
        self._factor = new.hidden_size // old.hidden_size
        self._noise = Noise()

    def run(self) -> dict[str, Tensor]:
        """All tensors of the larger model, float32."""
        tables = ("embed_tokens.weight", "embed_positions.weight")
        out = {ROOT + name: self._old(ROOT + name).repeat(1, self._factor) for name in tables}
        out |= self._norm(ROOT + "final_layer_norm", ROOT + "final_layer_norm")
        head = ROOT + "embed_tokens.weight" if self.old.tie_embeddings else "lm_head.weight"
        out["lm_head.weight"] = self._reader(self._old(head), self.old.vocab_size)
        for index in range(self.new.num_layers):
            prefix = f"{ROOT}layers.{index}."
            out |= self._layer(prefix) if index < self.old.num_layers else self._silent_layer(prefix)
        return out

    def _layer(self, prefix: str) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for name, rows in self._readers().items():
            out[f"{prefix}{name}.weight"] = self._reader(self._old(f"{prefix}{name}.weight"), rows)
            out[f"{prefix}{name}.bias"] = self._padded(self._old(f"{prefix}{name}.bias"), rows)
        for name, columns in self._writers().items():
            weight = self._old(f"{prefix}{name}.weight").repeat(self._factor, 1)
            padded = torch.zeros(self.new.hidden_size, columns)
            padded[:, : weight.shape[1]] = weight
            out[f"{prefix}{name}.weight"] = padded
            out[f"{prefix}{name}.bias"] = self._old(f"{prefix}{name}.bias").repeat(self._factor)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            out |= self._norm(prefix + name, prefix + name)
        return out

    def _silent_layer(self, prefix: str) -> dict[str, Tensor]:
        """A layer that computes as much as any other and adds zero."""
        hidden = self.new.hidden_size
        out: dict[str, Tensor] = {}
        for name, rows in self._readers().items():
            out[f"{prefix}{name}.weight"] = self._noise.matrix(rows, hidden)
            out[f"{prefix}{name}.bias"] = torch.zeros(rows)
        for name, columns in self._writers().items():
            out[f"{prefix}{name}.weight"] = torch.zeros(hidden, columns)
            out[f"{prefix}{name}.bias"] = torch.zeros(hidden)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            out[f"{prefix}{name}.weight"], out[f"{prefix}{name}.bias"] = torch.ones(hidden), torch.zeros(hidden)
        return out

    def _readers(self) -> dict[str, int]:
        hidden = self.new.hidden_size
        return {f"self_attn.{name}_proj": hidden for name in ("q", "k", "v")} | {"fc1": self.new.ffn_size}

    def _writers(self) -> dict[str, int]:
        return {"self_attn.out_proj": self.new.hidden_size, "fc2": self.new.ffn_size}

    def _old(self, name: str) -> Tensor:
        return self.weights[name][:].float()

    def _norm(self, target: str, source: str) -> dict[str, Tensor]:
        return {f"{target}.{part}": self._old(f"{source}.{part}").repeat(self._factor) for part in ("weight", "bias")}

    def _reader(self, old: Tensor, num_rows: int) -> Tensor:
        """Old rows read the first copy only; added rows may compute anything, nothing reads them."""
        out = self._noise.matrix(num_rows, self.new.hidden_size)
        out[: old.shape[0]] = 0.0
        out[: old.shape[0], : old.shape[1]] = old
        return out

    @staticmethod
    def _padded(old: Tensor, length: int) -> Tensor:
        out = torch.zeros(length)
        out[: len(old)] = old
        return out
