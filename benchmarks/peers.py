"""transformers' generate on the same weights, prompts, lengths and threads, as a peer to time against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from treespec.config import Inflation
from treespec.model.checkpoint import Checkpoint
from treespec.model.families.registry import FAMILIES
from treespec.model.spec import ModelSpec, architecture_of, read_config

TRANSFORMERS_METHODS: dict[str, dict[str, Any]] = {
    "incremental": {},
    "assisted, default": {"assistant": {}},
    "assisted, 4 tokens": {"assistant": {"num_assistant_tokens": 4}},
    "assisted, 8 tokens": {"assistant": {"num_assistant_tokens": 8}},
    "prompt lookup, 10": {"prompt_lookup_num_tokens": 10},
}


class TransformersPeer:
    """A target, inflated like ours, and its draft as ordinary transformers models; without a draft it never assists."""

    def __init__(
        self,
        target: Path,
        draft: Path | None,
        inflation: Inflation | None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self._device = device
        self._target = _load(target, inflation, dtype).to(device)
        self._draft = None if draft is None else _load(draft, None, dtype).to(device)
        for model in (self._target, self._draft):
            if model is not None:
                model.generation_config.eos_token_id = None  # every method generates the same number of tokens

    @property
    def num_parameters(self) -> int:
        """Of the target, a tied table counted once."""
        return sum(parameter.numel() for parameter in self._target.parameters())

    @torch.inference_mode()
    def generate(
        self, method: str, prompts: Sequence[Sequence[int]], num_tokens: int, eos_token_ids: Sequence[int] = ()
    ) -> list[list[int]]:
        """Greedy continuations of ``num_tokens``; one prompt, or several padded on the left.

        Without ``eos_token_ids`` all have exactly that length; else what follows one of these is padding.
        """
        options = dict(TRANSFORMERS_METHODS[method])
        if eos_token_ids:
            options["eos_token_id"] = list(eos_token_ids)
        if (assistant := options.pop("assistant", None)) is not None:
            assert self._draft is not None
            options["assistant_model"] = self._draft
            self._draft.generation_config.update(**_assistant_settings(assistant))
        longest = max(map(len, prompts))
        gaps = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor([[0] * gap + list(prompt) for gap, prompt in zip(gaps, prompts, strict=True)])
        mask = torch.tensor([[0] * gap + [1] * len(prompt) for gap, prompt in zip(gaps, prompts, strict=True)])
        out = self._target.generate(
            ids.to(self._device),
            attention_mask=mask.to(self._device),
            do_sample=False,
            max_new_tokens=num_tokens,
            pad_token_id=0,
            **options,
        )
        rows: list[list[int]] = out[:, longest:].tolist()
        return rows


def _assistant_settings(assistant: dict[str, Any]) -> dict[str, Any]:
    """The default grows and shrinks the number of tokens by confidence; a fixed number needs both switched off."""
    if not assistant:
        return {
            "num_assistant_tokens": 20,
            "num_assistant_tokens_schedule": "constant",
            "assistant_confidence_threshold": 0.4,
        }
    return {**assistant, "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}


def _load(folder: Path, inflation: Inflation | None, dtype: torch.dtype) -> Any:
    if inflation is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    config = read_config(folder)
    family = FAMILIES.get(architecture_of(config, folder))
    spec = family.spec(config, folder)
    spec, weights = family.inflate(spec, family.read_weights(spec, Checkpoint(folder)), inflation)
    larger = AutoConfig.from_pretrained(folder, local_files_only=True)
    for key, value in _config_of(spec).items():
        if hasattr(larger, key):
            setattr(larger, key, value)
    model = AutoModelForCausalLM.from_config(larger, dtype=dtype).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


def _config_of(spec: ModelSpec) -> dict[str, Any]:
    """The specification in the words of either family's configuration."""
    return {
        "hidden_size": spec.hidden_size,
        "word_embed_proj_dim": spec.hidden_size,
        "intermediate_size": spec.ffn_size,
        "ffn_dim": spec.ffn_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "rms_norm_eps": spec.norm_eps,
        "tie_word_embeddings": spec.tie_embeddings,
    }
