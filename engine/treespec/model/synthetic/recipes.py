"""Which tensors a synthetic model has, by family, and how large each must be for its draft to agree as asked.

The residual of a target is as wide as its draft's: the first ``core`` coordinates carry it, what is written to the
others is FAINT, so that no matrix holds zeros and every product costs what it costs. So is what is written to
coordinate 0, which is the same for every token and gives layers a threshold. The first layers compute in the
core what the draft computes; each later one adds noise to it. The head gives a token's plausible followers one large
logit (``signal``) and tells them apart by directions of the residual (``sharpness``).

Legend: X variance of a core coordinate behind the draft's layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch

from treespec.model.synthetic.card import Knobs
from treespec.model.synthetic.noise import NoisePool
from treespec.model.synthetic.shapes import SPECIAL_TOKENS, Core, ModelShape
from treespec.model.synthetic.tensors import CommonRows, Constant, Groups, Head, Noise, Recipe, Table

FAINT = 2.0**-8
ATTENTION_VARIANCE, FFN_VARIANCE, POSITION_GAIN = 1.0, 0.5, 0.3  # what the core's layers add, in all, to an embedding
QUERY_GAIN = 1.5  # scores then spread by its square: attention picks a few tokens and not all
FFN_NORM = 3**0.5  # of SiLU(a) b, and of ReLU(a) - ReLU(b) per neuron, for normal a and b: the variance is a third
LLAMA_STEEPNESS = 4.0  # noise per standard deviation above the threshold, in units of X**0.5: it grows from there
OPT_STEEPNESS, OPT_DROWNING = 2.0, 6.0  # it rises to this as steeply as ReLU lets it
# Noise of 2.7 X**0.5 hides the plausible tokens; where that is, in standard deviations behind the threshold.
LLAMA_DROWNED, OPT_DROWNED = 2.7 / LLAMA_STEEPNESS, -0.55


@dataclass(frozen=True)
class Recipes:
    """Recipes of all tensors of one model, target or draft, in the order a file holds them."""

    shape: ModelShape
    core: Core
    knobs: Knobs
    seed: int
    dtype: torch.dtype
    share_layers: int | None = None

    def all(self) -> dict[str, tuple[tuple[int, ...], Recipe]]:
        """Shape and recipe by the name in a checkpoint."""
        made = _Maker(self)
        return made.llama() if self.shape.family == "llama" else made.opt()

    @property
    def num_tail_layers(self) -> int:
        """Layers behind the draft's; none in a draft."""
        return self.shape.num_layers - self.core.num_layers

    def stored_layer(self, layer: int) -> int:
        """The layer whose weights this one has."""
        behind = layer - self.core.num_layers
        if self.share_layers is None or behind < 0:
            return layer
        return self.core.num_layers + behind % self.share_layers

    @property
    def tail_gain(self) -> float:
        """Each later layer's two parts write so much of X**0.5.

        Parts of distinct layers are independent; layers that share weights write nearly the same again.
        """
        num_layers = max(1, self.num_tail_layers)
        distinct = min(self.share_layers or num_layers, num_layers)
        return self.knobs.noise / (num_layers / distinct * math.sqrt(2 * distinct))


class _Maker:
    """Builds recipes; names of matrices do not depend on sizes, so that a draft's are the target's."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes
        self._shape, self._core = recipes.shape, recipes.core
        self._tables = NoisePool(recipes.seed, "tables", recipes.dtype)
        self._matrices = NoisePool(recipes.seed, "matrices", recipes.dtype)
        positions = POSITION_GAIN**2 if recipes.shape.family == "opt" else 0.0
        self._residual = math.sqrt(1 + positions + ATTENTION_VARIANCE + FFN_VARIANCE)

    def llama(self) -> dict[str, tuple[tuple[int, ...], Recipe]]:
        shape, d = self._shape, self._shape.head_dim
        m, queries, keys = shape.hidden_size, shape.num_heads * d, shape.num_kv_heads * d
        tensors: dict[str, tuple[tuple[int, ...], Recipe]] = {"model.embed_tokens.weight": self._table()}
        for layer in range(shape.num_layers):
            prefix = f"model.layers.{layer}."
            tensors |= {
                prefix + "input_layernorm.weight": self._norm(),
                prefix + "self_attn.q_proj.weight": self._reader(layer, "q", queries, QUERY_GAIN),
                prefix + "self_attn.k_proj.weight": self._reader(layer, "k", keys, QUERY_GAIN),
                prefix + "self_attn.v_proj.weight": self._reader(layer, "v", keys),
                prefix + "self_attn.o_proj.weight": self._attention_out(layer, queries),
                prefix + "post_attention_layernorm.weight": self._norm(),
                prefix + "mlp.gate_proj.weight": self._gate(layer),
                prefix + "mlp.up_proj.weight": self._reader(layer, "up", shape.ffn_size),
                prefix + "mlp.down_proj.weight": self._down(layer, 1.0, is_mirrored=False),
            }
        return tensors | {"model.norm.weight": self._norm(), "lm_head.weight": ((shape.vocab_size, m), self._head())}

    def opt(self) -> dict[str, tuple[tuple[int, ...], Recipe]]:
        shape, root = self._shape, "model.decoder."
        m, f = shape.hidden_size, shape.ffn_size
        tensors: dict[str, tuple[tuple[int, ...], Recipe]] = {
            root + "embed_tokens.weight": self._table(),
            root + "embed_positions.weight": self._positions(),
        }
        for layer in range(shape.num_layers):
            prefix = f"{root}layers.{layer}."
            maps = {
                "self_attn.q_proj": self._reader(layer, "q", m, QUERY_GAIN),
                "self_attn.k_proj": self._reader(layer, "k", m, QUERY_GAIN),
                "self_attn.v_proj": self._reader(layer, "v", m),
                "self_attn.out_proj": self._attention_out(layer, m),
                "fc1": self._up(layer),
                "fc2": self._down(layer, OPT_DROWNING, is_mirrored=True),
            }
            for name, weight in maps.items():
                tensors |= {f"{prefix}{name}.weight": weight, f"{prefix}{name}.bias": self._bias(weight[0][0])}
            if self._drowns(layer):
                tensors[prefix + "fc1.bias"] = self._bias(f, -OPT_STEEPNESS * self._threshold)
            for name in ("self_attn_layer_norm", "final_layer_norm"):
                tensors |= {f"{prefix}{name}.weight": self._norm(), f"{prefix}{name}.bias": self._bias(m)}
        name = root + "final_layer_norm"
        tensors |= {f"{name}.weight": self._norm(), f"{name}.bias": self._bias(m)}
        return tensors | {"lm_head.weight": ((shape.vocab_size, m), self._head())}

    def _norm(self) -> tuple[tuple[int, ...], Recipe]:
        """Undoes that the mean is taken over all coordinates and only the core is not faint."""
        m = self._shape.hidden_size
        return (m,), Constant(math.sqrt(self._core.hidden_size / m), self._recipes.dtype)

    def _bias(self, size: int, value: float = 0.0) -> tuple[tuple[int, ...], Recipe]:
        return (size,), Constant(value, self._recipes.dtype)

    def _even(self, name: str, gain: float, rows: int) -> Noise:
        return Noise(self._matrices, name, (0, rows), self._shape.hidden_size, gain, gain)

    def _table(self) -> tuple[tuple[int, ...], Recipe]:
        V, m, core = self._shape.vocab_size, self._shape.hidden_size, self._core.hidden_size
        return (V, m), Table(Noise(self._tables, "embedding", (0, V), core, 1.0, self._outside(1.0, core, m)))

    def _positions(self) -> tuple[tuple[int, ...], Recipe]:
        rows, m, core = self._shape.max_positions + 2, self._shape.hidden_size, self._core.hidden_size
        faint = self._outside(POSITION_GAIN, core, m)
        return (rows, m), Noise(self._tables, "positions", (0, rows), core, POSITION_GAIN, faint)

    def _reader(self, layer: int, name: str, rows: int, gain: float = 1.0) -> tuple[tuple[int, ...], Recipe]:
        """Reads the normalised residual: results have variance ``gain ** 2``."""
        m, gain = self._shape.hidden_size, gain / math.sqrt(self._core.hidden_size)
        return (rows, m), self._even(self._name(layer, name), gain, rows)

    def _gate(self, layer: int) -> tuple[tuple[int, ...], Recipe]:
        """LLaMA: SiLU of one common direction multiplies what the neurons have of their own."""
        if not self._drowns(layer):
            return self._reader(layer, "gate", self._shape.ffn_size)
        gain = LLAMA_STEEPNESS / math.sqrt(self._core.hidden_size)
        threshold = LLAMA_STEEPNESS * self._threshold * self._residual  # coordinate 0 is 1 before it is normalised
        rows = CommonRows(self._matrices, self._name(layer, "gate"), gain, 0.0, threshold)
        return (self._shape.ffn_size, self._shape.hidden_size), rows

    def _up(self, layer: int) -> tuple[tuple[int, ...], Recipe]:
        """OPT: a pair of neurons writes the difference of its own parts far above the threshold, nothing far below."""
        if not self._drowns(layer):
            return self._reader(layer, "up", self._shape.ffn_size)
        own = 1 / math.sqrt(self._core.hidden_size)
        rows = CommonRows(self._matrices, self._name(layer, "up"), OPT_STEEPNESS * own, own, 0.0)
        return (self._shape.ffn_size, self._shape.hidden_size), rows

    def _attention_out(self, layer: int, columns: int) -> tuple[tuple[int, ...], Recipe]:
        variance = ATTENTION_VARIANCE / self._core.num_layers
        tail = self._recipes.tail_gain
        return self._writer(layer, "attention_out", columns, self._core.hidden_size, math.sqrt(variance), tail)

    def _down(self, layer: int, drowning: float, *, is_mirrored: bool) -> tuple[tuple[int, ...], Recipe]:
        gain = FFN_NORM * math.sqrt(FFN_VARIANCE / self._core.num_layers)
        tail = drowning if self._drowns(layer) else FFN_NORM * self._recipes.tail_gain
        shape, writer = self._writer(layer, "down", self._shape.ffn_size, self._core.ffn_size, gain, tail)
        return shape, replace(writer, is_mirrored=is_mirrored)

    def _writer(
        self, layer: int, name: str, columns: int, core_columns: int, core_gain: float, tail_gain: float
    ) -> tuple[tuple[int, ...], Noise]:
        """Adds to the residual: the draft's part in a core layer; in a later one noise, in units of X**0.5."""
        m, core = self._shape.hidden_size, self._core.hidden_size
        if layer < self._core.num_layers:
            gain, used = core_gain / math.sqrt(core_columns), core_columns
        else:
            gain, used = tail_gain * self._residual / math.sqrt(columns), columns
        name, faint = self._name(layer, name), FAINT / math.sqrt(columns)
        return (m, columns), Noise(self._matrices, name, (1, core), used, gain, faint)

    def _head(self) -> Recipe:
        V, core = self._shape.vocab_size, self._core.hidden_size
        knobs = self._recipes.knobs
        groups = Groups.of(V, len(SPECIAL_TOKENS), knobs.branching, self._recipes.seed)
        gain = knobs.sharpness / math.sqrt(core)
        # The noise shrinks the signal; all other tokens together must still be less likely than the plausible ones.
        signal = (9 + 2 * math.log(groups.num_groups)) * self._residual / core
        members = self._even("members", gain, knobs.branching)
        _, table = self._table()
        assert isinstance(table, Table)
        return Head(table, groups, members, self._even("head", gain, V), core, signal)

    def _drowns(self, layer: int) -> bool:
        """Whether this layer's FFN makes the draft useless at some tokens."""
        first = self._core.num_layers
        is_tail = layer >= first and self._recipes.num_tail_layers > 0
        return is_tail and self._recipes.knobs.miss_share > 0 and self._recipes.stored_layer(layer) == first

    @property
    def _threshold(self) -> float:
        """Of a normal number that drowns the draft in ``miss_share`` of all cases."""
        behind = LLAMA_DROWNED if self._shape.family == "llama" else OPT_DROWNED
        return NormalDist().inv_cdf(1 - self._recipes.knobs.miss_share) - behind

    @staticmethod
    def _outside(gain: float, core: int, width: int) -> float:
        return gain if core == width else gain * FAINT

    def _name(self, layer: int, name: str) -> str:
        return f"layer {self._recipes.stored_layer(layer)} {name}"
