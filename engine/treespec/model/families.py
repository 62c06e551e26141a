"""The decoder families this engine serves; adding one is a file and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from treespec.config import Inflation
from treespec.model.checkpoint import Checkpoint, StoredTensor
from treespec.model.decoder import Decoder, Weights
from treespec.model.inflate_llama import inflate_llama
from treespec.model.inflate_opt import inflate_opt
from treespec.model.llama import LlamaDecoder, llama_spec, read_llama_weights
from treespec.model.opt import OptDecoder, opt_spec, read_opt_weights
from treespec.model.spec import ModelSpec
from treespec.parallel.collectives import Collectives
from treespec.parallel.mesh import ParallelMesh
from treespec.registry import Registry


@dataclass(frozen=True)
class Family:
    """What the loader needs to know of a family."""

    spec: Callable[[dict[str, Any], Path], ModelSpec]
    read_weights: Callable[[ModelSpec, Checkpoint], dict[str, StoredTensor]]
    inflate: Callable[[ModelSpec, Weights, Inflation], tuple[ModelSpec, dict[str, Tensor]]]
    decoder: Callable[[ModelSpec, Weights, torch.dtype, torch.device, ParallelMesh, Collectives | None], Decoder]


FAMILIES: Registry[Family] = Registry(
    "model architecture",
    {
        "LlamaForCausalLM": Family(llama_spec, read_llama_weights, inflate_llama, LlamaDecoder),
        "OPTForCausalLM": Family(opt_spec, read_opt_weights, inflate_opt, OptDecoder),
    },
)
