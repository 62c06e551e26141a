"""What every decoder family looks like from outside, and the table of families.

Legend: B requests, N new tokens per request, R rows whose logits are wanted, V vocabulary, K key slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from treespec.kvcache.pool import KVCachePool
from treespec.model.spec import ModelSpec
from treespec.ops.attention import tree_attention
from treespec.parallel.mesh import ParallelMesh


class Wanted(IntEnum):
    """What a pass is to find out about its rows."""

    LOGITS = 0
    LIKELIEST = 1  # the token of largest logit, the lowest of equals: all that greedy decoding needs


@dataclass(frozen=True)
class ForwardBatch:
    """Padded, request-major input of one forward pass, on the device.

    Rows may be any nodes whose ancestors hold slots: a prompt chunk, a level of a draft, a whole tree. Padding
    tokens write to slots that nothing sees.
    """

    ids_BN: Tensor  # int64
    positions_BN: Tensor  # int64
    slots_T: Tensor  # int64, T = B * N, where keys and values go
    regions: slice | Tensor  # cache regions of the B requests; a slice where they are adjacent
    num_keys: int  # K: slots read per region
    bias_BNK: Tensor | None  # 0 where visible, -inf elsewhere; None: every token sees all K slots
    logit_rows: Tensor | None  # int64 [R] into T; None: all
    wanted: Wanted = Wanted.LOGITS  # of these rows

    @property
    def num_rows(self) -> int:
        """R: rows of which a result is wanted."""
        return self.ids_BN.numel() if self.logit_rows is None else len(self.logit_rows)


@dataclass(frozen=True)
class ForwardOutput:
    """What was wanted of each row: its logits ``[R, V]``, or its likeliest token, int64 ``[R]``.

    Of several ranks only the driver has it, the others have no rows. ``hidden_RM`` only where a drafter asked for it.
    """

    rows: Tensor
    hidden_RM: Tensor | None = None


class Decoder(Protocol):
    """Maps (ids, positions, slots, mask) to logits or their largest; knows nothing of requests, trees or methods."""

    spec: ModelSpec
    mesh: ParallelMesh
    dtype: torch.dtype
    device: torch.device

    def forward(self, batch: ForwardBatch, pool: KVCachePool) -> ForwardOutput:
        """One pass; writes the batch's keys and values into ``pool``."""


def attend(
    layer: int, q_BNHD: Tensor, k_BNGD: Tensor, v_BNGD: Tensor, batch: ForwardBatch, pool: KVCachePool
) -> Tensor:
    """Store the new keys and values in their slots and attend over all the batch may see; ``[B, N, H, D]``."""
    pool.write(layer, batch.slots_T, k_BNGD.flatten(0, 1), v_BNGD.flatten(0, 1))
    k_BKGD, v_BKGD = pool.read(layer, batch.regions, batch.num_keys)
    return tree_attention(q_BNHD, k_BKGD, v_BKGD, batch.bias_BNK)
