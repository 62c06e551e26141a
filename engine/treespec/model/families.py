"""The decoder families this engine serves; adding one is a file and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from treespec.config import Inflation
from treespec.model.decoder import Decoder
from treespec.model.inflate_llama import inflate_llama
from treespec.model.inflate_opt import inflate_opt
from treespec.model.llama import LlamaDecoder, llama_spec, read_llama_weights
from treespec.model.mistral import mistral_spec
from treespec.model.offload.keeper import Keeper
from treespec.model.opt import OptDecoder, opt_spec, read_opt_weights
from treespec.model.qwen2 import qwen2_spec
from treespec.model.sources import Sliceable, TensorSource, Weights
from treespec.model.spec import ModelSpec
from treespec.parallel.collectives import Collectives
from treespec.parallel.mesh import ParallelMesh
from treespec.registry import Registry


class DecoderOf(Protocol):
    """Builds a family's decoder."""

    def __call__(
        self,
        spec: ModelSpec,
        weights: Weights,
        dtype: torch.dtype,
        device: torch.device,
        mesh: ParallelMesh,
        collectives: Collectives | None = None,
        keeper: Keeper | None = None,
    ) -> Decoder:
        """Takes this rank's weights. Raises TreespecError."""


@dataclass(frozen=True)
class Family:
    """What the loader needs to know of a family."""

    spec: Callable[[dict[str, Any], Path], ModelSpec]
    read_weights: Callable[[ModelSpec, TensorSource], dict[str, Sliceable]]
    inflate: Callable[[ModelSpec, Weights, Inflation], tuple[ModelSpec, dict[str, Tensor]]]
    decoder: DecoderOf


FAMILIES: Registry[Family] = Registry(
    "model architecture",
    {
        "LlamaForCausalLM": Family(llama_spec, read_llama_weights, inflate_llama, LlamaDecoder),
        "MistralForCausalLM": Family(mistral_spec, read_llama_weights, inflate_llama, LlamaDecoder),
        "OPTForCausalLM": Family(opt_spec, read_opt_weights, inflate_opt, OptDecoder),
        "Qwen2ForCausalLM": Family(qwen2_spec, read_llama_weights, inflate_llama, LlamaDecoder),
    },
)
