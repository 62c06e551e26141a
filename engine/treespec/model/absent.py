"""A model whose weights only other ranks hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import ForwardBatch, ForwardOutput
from treespec.model.spec import ModelSpec
from treespec.parallel.mesh import ParallelMesh


@dataclass
class AbsentDecoder:
    """What has to be known of such a model to pack its batches and to read its answers."""

    spec: ModelSpec
    dtype: torch.dtype
    device: torch.device
    mesh: ParallelMesh = field(default_factory=ParallelMesh)

    def forward(self, batch: ForwardBatch, pool: KVCachePool) -> ForwardOutput:  # noqa: ARG002
        """There is nothing to compute with."""
        raise AssertionError("this rank does not hold the model")
