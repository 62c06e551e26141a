"""Tiny checkpoints of every family and variant, made and written by transformers' own classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.tests.checkpoints import VOCAB_SIZE, character_tokenizer
from engine.tests.decoding import CLEAR_GAP, load, ragged_prompts
from treespec.model.loader import LoadedModel

NUM_TEXTS, TEXT_TOKENS, LONGEST_PROMPT = 3, 16, 40
DRAFT_NOISE = 0.05  # of each weight's spread
WINDOW = 9  # shorter than the prompts, longer than a tree is deep

COMMON = {"vocab_size": VOCAB_SIZE, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4} | {
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROTARY = COMMON | {"intermediate_size": 72, "num_key_value_heads": 2}
OPT = COMMON | {"ffn_dim": 96}
# The first training saw so few positions that the prompts reach all three kinds of frequencies.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
} | {"original_max_position_embeddings": 32}


@dataclass(frozen=True)
class Variant:
    """A class of transformers and what its configuration is made with."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "llama 1": Variant("Llama", {"num_key_value_heads": 4}),
    "llama 2, grouped": Variant("Llama"),
    "tinyllama, one head for all": Variant("Llama", {"num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "llama 3": Variant("Llama", {"rope_parameters": LLAMA3}),
    "llama 3.2, tied": Variant("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama, linear scaling": Variant(
        "Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}
    ),
    "llama, attention biases": Variant("Llama", {"attention_bias": True}),
    "llama, mlp biases": Variant("Llama", {"mlp_bias": True}),
    "llama, all biases": Variant("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, own head size": Variant("Llama", {"head_dim": 16}),
    "mistral, window": Variant("Mistral", {"sliding_window": WINDOW}),
    "mistral, narrow window": Variant("Mistral", {"sliding_window": 2}),
    "mistral, no window": Variant("Mistral", {"sliding_window": None, "head_dim": 16}),
    "mistral, wide window": Variant("Mistral", {"sliding_window": 4096}),
    "qwen2": Variant("Qwen2"),
    "qwen2, tied": Variant("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, window in later layers": Variant(
        "Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    ),
    "qwen2, window in named layers": Variant(
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "num_hidden_layers": 3}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "opt": Variant("OPT"),
    "opt-350m": Variant("OPT", {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    "opt, projected": Variant("OPT", {"word_embed_proj_dim": 32}),
    "opt, norms after the sums": Variant("OPT", {"do_layer_norm_before": False}),
    "opt, no final norm": Variant("OPT", {"_remove_final_layer_norm": True}),
    "opt, no biases": Variant("OPT", {"enable_bias": False}),
    "opt, untied": Variant("OPT", {"tie_word_embeddings": False}),
}
WINDOWED = [name for name in VARIANTS if "window" in name and "no " not in name and "wide" not in name]
WRITERS = ("o_proj", "out_proj", "down_proj", "fc2")


def scattered(model: Any, seed: int) -> None:
    """Seeded weights of such scales that attention is sharp and greedy text wanders; biases and norms among them."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=draw)
        part = name.split(".")[-2]
        if "norm" in part:
            tensor.data = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            tensor.data = 0.3 * noise
        else:
            gain = 4.0 if part in WRITERS else 1.5 if part in ("q_proj", "k_proj") else 1.0
            tensor.data = gain * noise / tensor.shape[-1] ** 0.5


def model_of(variant: Variant) -> Any:
    """The model of a variant, in transformers."""
    import transformers

    config = getattr(transformers, f"{variant.family}Config")(
        **((OPT if variant.family == "OPT" else ROTARY) | variant.settings)
    )
    model = getattr(transformers, f"{variant.family}ForCausalLM")(config).eval()
    scattered(model, seed=0)
    model.tie_weights()
    model.generation_config.eos_token_id = None  # an ordinary token, as it is with ``ignore_eos``
    return model


def write(model: Any, folder: Path) -> Path:
    """A model folder as transformers writes it, with the characters' tokenizer."""
    model.save_pretrained(folder)
    character_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@dataclass(frozen=True)
class Example:
    """A variant on disk, a draft that often agrees with it, and prompts that transformers continued clearly."""

    root: Path
    variant: Variant

    @cached_property
    def reference(self) -> Any:
        """The model in transformers."""
        return model_of(self.variant)

    @cached_property
    def folder(self) -> Path:
        """The target's folder."""
        return write(self.reference, self.root / "target")

    @cached_property
    def target(self) -> LoadedModel:
        """The target as this engine loads it."""
        return load(self.folder)

    @cached_property
    def draft(self) -> LoadedModel:
        """The same with every weight moved a little."""
        model = model_of(self.variant)
        draw = torch.Generator().manual_seed(1)
        for tensor in model.parameters():
            tensor.data += DRAFT_NOISE * tensor.std() * torch.randn(tensor.shape, generator=draw)
        return load(write(model, self.root / "draft"))

    @torch.no_grad()
    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """``[T, V]`` of transformers."""
        logits_TV: Tensor = self.reference(torch.tensor([list(token_ids)])).logits[0]
        return logits_TV

    @cached_property
    def texts(self) -> list[tuple[list[int], list[int]]]:
        """Prompts and their continuations by transformers, no token of which was a close choice."""
        texts = []
        for prompt in ragged_prompts(3, 12 * NUM_TEXTS, LONGEST_PROMPT, VOCAB_SIZE):
            ids = torch.tensor([prompt])
            out = self.reference.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=TEXT_TOKENS, do_sample=False
            )[0].tolist()
            top_T2 = self.logits(out)[len(prompt) - 1 : -1].topk(2).values
            if float((top_T2[:, 0] - top_T2[:, 1]).min()) >= CLEAR_GAP:
                texts.append((prompt, out[len(prompt) :]))
            if len(texts) == NUM_TEXTS:
                return texts
        raise AssertionError(f"only {len(texts)} prompts have clear continuations")


class Examples:
    """The variants by name, written on first use."""

    def __init__(self, root: Path) -> None:
        self.of = cache(lambda name: Example(root / name, VARIANTS[name]))
