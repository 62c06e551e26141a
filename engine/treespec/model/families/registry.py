"""The decoder families this engine serves; adding one is a file and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from treespec.config import Inflation
from treespec.model.families.llama import LlamaDecoder, llama_spec, read_llama_weights
from treespec.model.families.mistral import mistral_spec
from treespec.model.families.opt import OptDecoder, opt_spec, read_opt_weights
from treespec.model.families.qwen2 import qwen2_spec
from treespec.model.inflation.llama import inflate_llama
from treespec.model.inflation.opt import inflate_opt
from treespec.model.sources import Sliceable, TensorSource, Weights
from treespec.model.spec import ModelSpec
from treespec.model.staged import StagedDecoder
from treespec.registry import Registry


@dataclass(frozen=True)
class Family:
    """What the loader needs to know of a family."""

    spec: Callable[[dict[str, Any], Path], ModelSpec]
    read_weights: Callable[[ModelSpec, TensorSource], dict[str, Sliceable]]
    inflate: Callable[[ModelSpec, Weights, Inflation], tuple[ModelSpec, dict[str, Tensor]]]
    decoder: type[StagedDecoder]


FAMILIES: Registry[Family] = Registry(
    "model architecture",
    {
        "LlamaForCausalLM": Family(llama_spec, read_llama_weights, inflate_llama, LlamaDecoder),
        "MistralForCausalLM": Family(mistral_spec, read_llama_weights, inflate_llama, LlamaDecoder),
        "OPTForCausalLM": Family(opt_spec, read_opt_weights, inflate_opt, OptDecoder),
        "Qwen2ForCausalLM": Family(qwen2_spec, read_llama_weights, inflate_llama, LlamaDecoder),
    },
)
