"""What the decoders of all families share: one stage of a pipeline, one share of every layer.

Legend: B requests, N new tokens, M hidden, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import ForwardBatch, ForwardOutput, Wanted
from treespec.model.offload.keeper import Keeper, Resident
from treespec.model.sources import Weights
from treespec.model.spec import ModelSpec
from treespec.model.weights import Shares, WeightSource
from treespec.parallel.collectives import Alone, Collectives
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.vocabulary import likeliest, whole_logits


class StagedDecoder(ABC):
    """Tokens come in at the first stage, logits out at the last; on one rank both are the same.

    Per layer the ranks of a stage sum twice, after attention and after the FFN (Megatron-LM, Shoeybi et al. 2019,
    section 3). The embedding is summed once; the logits, or only the largest of each share, are gathered once.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        dtype: torch.dtype,
        device: torch.device,
        mesh: ParallelMesh,
        collectives: Collectives | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.spec = spec
        self.mesh = mesh
        self.dtype = dtype
        self.device = device
        self._collectives = collectives or Alone()
        keeper = keeper or Resident(dtype, device)
        source = WeightSource(weights, dtype, device, mesh, keeper)
        self._load(source, Shares.of(spec, mesh))
        keeper.finish(source.fixed_bytes)

    @abstractmethod
    def _load(self, source: WeightSource, shares: Shares) -> None:
        """Take this rank's weights."""

    @abstractmethod
    def _embed(self, batch: ForwardBatch) -> Tensor:
        """``[B, N, M]``, first stage only."""

    @abstractmethod
    def _run_layers(self, x_BNM: Tensor, batch: ForwardBatch, pool: KVCachePool) -> Tensor:
        """This stage's layers."""

    @abstractmethod
    def _logits(self, x_RM: Tensor) -> Tensor:
        """This rank's share of the vocabulary, last stage only."""

    def forward(self, batch: ForwardBatch, pool: KVCachePool) -> ForwardOutput:
        """One pass; a rank that does not drive has no rows in the end."""
        mesh, spec = self.mesh, self.spec
        if mesh.is_first_stage:
            x_BNM = self._embed(batch)
        else:
            B, N = batch.ids_BN.shape
            like = torch.empty(0, dtype=self.dtype, device=self.device)
            x_BNM = self._collectives.receive((B, N, spec.hidden_size), like)
        x_BNM = self._run_layers(x_BNM, batch, pool)
        if not mesh.is_last_stage:
            self._collectives.send(x_BNM)
            return ForwardOutput(x_BNM.new_empty(0))
        x_TM = x_BNM.flatten(0, 1)
        x_RM = x_TM if batch.logit_rows is None else x_TM[batch.logit_rows]
        find = likeliest if batch.wanted is Wanted.LIKELIEST else whole_logits
        return ForwardOutput(find(self._logits(x_RM), spec.vocab_size, mesh, self._collectives))

    def _sum(self, x: Tensor) -> Tensor:
        return self._collectives.sum(x)

    def _embedded(self, ids_BN: Tensor, share_VM: Tensor) -> Tensor:
        """Rows of the embedding, each known to the rank that holds it."""
        share = self.mesh.share(self.spec.vocab_size)
        if len(share) == self.spec.vocab_size:
            return F.embedding(ids_BN, share_VM)
        is_here_BN = (ids_BN >= share.start) & (ids_BN < share.stop)
        x_BNM = F.embedding((ids_BN - share.start) * is_here_BN, share_VM) * is_here_BN.unsqueeze(-1)
        return self._sum(x_BNM)
