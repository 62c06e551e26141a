"""The tensors behind the slots.

Legend: L layers, S slots, G key/value heads of this rank, D head size, B requests, K key slots of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treespec.kvcache.allocator import SlotMoves


@dataclass(frozen=True)
class CacheShape:
    """What decides the size of a pool."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    num_regions: int
    region_capacity: int

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Memory of keys and values together."""
        slots = self.num_regions * self.region_capacity
        return 2 * self.num_layers * slots * self.num_kv_heads * self.head_dim * dtype.itemsize


class KVCachePool:
    """Keys and values of all layers, allocated once; slot s of region r is slot ``r * capacity + s``."""

    def __init__(self, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        num_slots = shape.num_regions * shape.region_capacity
        # Zeros and not empty memory: masked slots are multiplied by a weight of 0, and 0 * NaN is NaN.
        self.kv_2LSGD = torch.zeros(
            2, shape.num_layers, num_slots, shape.num_kv_heads, shape.head_dim, dtype=dtype, device=device
        )

    def write(self, layer: int, slots_T: Tensor, k_TGD: Tensor, v_TGD: Tensor) -> None:
        """Store the keys and values of T tokens at their slots."""
        self.kv_2LSGD[0, layer].index_copy_(0, slots_T, k_TGD)
        self.kv_2LSGD[1, layer].index_copy_(0, slots_T, v_TGD)

    def read(self, layer: int, regions: slice | Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first ``num_keys`` slots of each region, ``[B, K, G, D]``; views for a slice."""
        shape = self.shape
        layer_kv = self.kv_2LSGD[:, layer].unflatten(1, (shape.num_regions, shape.region_capacity))
        k, v = layer_kv[:, regions, :num_keys]
        return k, v

    def move(self, moves: Sequence[SlotMoves]) -> None:
        """Carry out commits, in all layers at once."""
        sources = np.concatenate([move.sources for move in moves]) if moves else np.empty(0, dtype=np.int64)
        if not len(sources):
            return
        targets = np.concatenate([move.targets for move in moves])
        device = self.kv_2LSGD.device
        kept = self.kv_2LSGD.index_select(2, torch.from_numpy(sources).to(device))
        self.kv_2LSGD.index_copy_(2, torch.from_numpy(targets).to(device), kept)
