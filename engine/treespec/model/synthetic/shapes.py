"""Sizes of published models, as data, and of the drafts that a synthetic target is made with; torch-free."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from treespec.errors import ConfigError
from treespec.registry import Registry

Family = Literal["llama", "opt"]
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
NUM_BYTES = 256
MIN_VOCABULARY = len(SPECIAL_TOKENS) + NUM_BYTES
MAX_VOCABULARY = 262_139  # rows of a table must start at different places of the pool of noise


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder."""

    family: Family
    vocab_size: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int = 2048

    @property
    def head_dim(self) -> int:
        """Size of a head."""
        return self.hidden_size // self.num_heads

    def require_consistent(self) -> None:
        """Raises ConfigError for sizes that no model can have."""
        grouped = self.num_heads % self.num_kv_heads == 0 and (self.family == "llama" or self._has_all_kv_heads)
        rules = {
            f"hidden size {self.hidden_size} in {self.num_heads} heads": self.hidden_size % self.num_heads == 0,
            f"heads of {self.head_dim}, which must be even": self.head_dim % 2 == 0,
            f"{self.num_heads} heads over {self.num_kv_heads} key/value heads": grouped,
            f"FFN size {self.ffn_size}, which must be even": self.ffn_size % 2 == 0,
            f"vocabulary of {self.vocab_size}, allowed {MIN_VOCABULARY} to {MAX_VOCABULARY}": (
                MIN_VOCABULARY <= self.vocab_size <= MAX_VOCABULARY
            ),
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise ConfigError("no model can have these sizes", received="; ".join(broken))

    @property
    def _has_all_kv_heads(self) -> bool:
        return self.num_heads == self.num_kv_heads

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json in the Hugging Face layout."""
        common: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": False,
            "pad_token_id": SPECIAL_TOKENS.index("<pad>"),
            "bos_token_id": SPECIAL_TOKENS.index("<s>"),
            "eos_token_id": SPECIAL_TOKENS.index("</s>"),
            "torch_dtype": dtype,
        }
        return common | (self._llama_config() if self.family == "llama" else self._opt_config())

    def _llama_config(self) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "intermediate_size": self.ffn_size,
            "num_key_value_heads": self.num_kv_heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
        }

    def _opt_config(self) -> dict[str, Any]:
        return {
            "architectures": ["OPTForCausalLM"],
            "model_type": "opt",
            "ffn_dim": self.ffn_size,
            "word_embed_proj_dim": self.hidden_size,
            "activation_function": "relu",
            "do_layer_norm_before": True,
            "dropout": 0.0,
        }


@dataclass(frozen=True)
class Core:
    """What a target has in common with its draft: the width of its residual, FFN neurons and layers, from the first."""

    hidden_size: int
    ffn_size: int
    num_layers: int

    def draft_of(self, target: ModelShape) -> ModelShape:
        """The draft as a model: heads are the target's, only fewer. Raises ConfigError if it is no part of it."""
        if target.num_layers < 2:
            raise ConfigError("a target has more layers than its draft", received="1 layer", allowed="2 layers or more")
        heads = self.hidden_size // target.head_dim
        kv_heads = heads * target.num_kv_heads // target.num_heads
        fits = {
            f"hidden size {self.hidden_size}, allowed: multiples of the target's heads of {target.head_dim}": (
                heads * target.head_dim == self.hidden_size and 0 < self.hidden_size <= target.hidden_size
            ),
            f"{heads} heads in groups of {target.num_heads // target.num_kv_heads}": (
                kv_heads * target.num_heads == heads * target.num_kv_heads
            ),
            f"FFN size {self.ffn_size}, allowed: up to {target.ffn_size}": 0 < self.ffn_size <= target.ffn_size,
            f"{self.num_layers} layers, allowed: 1 to {target.num_layers - 1}": (
                0 < self.num_layers < target.num_layers
            ),
        }
        if broken := [rule for rule, holds in fits.items() if not holds]:
            raise ConfigError("the draft is no part of the target", received="; ".join(broken))
        return replace(
            target,
            hidden_size=self.hidden_size,
            ffn_size=self.ffn_size,
            num_layers=self.num_layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
        )


@dataclass(frozen=True)
class PublishedShape:
    """A shape with its name in words, where its sizes are from, and the sizes of its usual draft."""

    title: str
    source: str
    shape: ModelShape
    core: Core


_LLAMA_68M, _OPT_125M = Core(768, 3072, 2), Core(768, 3072, 12)


def _llama(title: str, sizes: tuple[int, int, int, int], source: str, core: Core = _LLAMA_68M) -> PublishedShape:
    hidden, ffn, layers, heads = sizes
    return PublishedShape(title, source, ModelShape("llama", 32000, hidden, ffn, layers, heads, heads), core)


def _opt(title: str, sizes: tuple[int, int, int], source: str, core: Core = _OPT_125M) -> PublishedShape:
    hidden, layers, heads = sizes
    return PublishedShape(title, source, ModelShape("opt", 50272, hidden, 4 * hidden, layers, heads, heads), core)


def _spotserve(title: str, sizes: tuple[int, int, int]) -> PublishedShape:
    hidden, layers, heads = sizes
    shape = ModelShape("opt", 51200, hidden, 4 * hidden, layers, heads, heads, 1024)
    return PublishedShape(title, _SPOTSERVE, shape, _OPT_125M)


_TOUVRON = "Touvron et al. 2023, table 2, and the config.json of the published folders"
_ZHANG = "Zhang et al. 2022, table 1, and the config.json of the published folders"
_SPOTSERVE = (
    "SpotServe (ASPLOS'24): hidden size and layers of its configurations, vocabulary and positions of its generator of "
    "checkpoints; heads are not stated there: those of OPT-6.7B, GPT-NeoX-20B and OPT-30B"
)

PUBLISHED: Registry[PublishedShape] = Registry(
    "published shape",
    {
        "llama-68m": _llama("LLaMA-68M", (768, 3072, 2, 12), "JackFram/llama-68m, config.json", Core(768, 3072, 1)),
        "llama-7b": _llama("LLaMA-7B", (4096, 11008, 32, 32), _TOUVRON),
        "llama-13b": _llama("LLaMA-13B", (5120, 13824, 40, 40), _TOUVRON),
        "llama-30b": _llama("LLaMA-30B", (6656, 17920, 60, 52), _TOUVRON),
        "llama-65b": _llama("LLaMA-65B", (8192, 22016, 80, 64), _TOUVRON),
        "opt-125m": _opt("OPT-125M", (768, 12, 12), _ZHANG, Core(768, 3072, 1)),
        "opt-1.3b": _opt("OPT-1.3B", (2048, 24, 32), _ZHANG),
        "opt-6.7b": _opt("OPT-6.7B", (4096, 32, 32), _ZHANG),
        "opt-13b": _opt("OPT-13B", (5120, 40, 40), _ZHANG),
        "opt-30b": _opt("OPT-30B", (7168, 48, 56), _ZHANG),
        "spotserve-opt-6.7b": _spotserve("SpotServe OPT-6.7B", (4096, 32, 32)),
        "spotserve-gpt-20b": _spotserve("SpotServe GPT-20B", (6144, 44, 64)),
        "spotserve-llama-30b": _spotserve("SpotServe LLaMA-30B", (7168, 48, 56)),
    },
)
"""The GPT and "LLaMA-30B" of SpotServe have LayerNorm and an FFN of four times the width: they are made as OPT, which
costs the same, with ReLU for GELU."""
