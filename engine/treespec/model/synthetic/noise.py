"""Noise of which any part can be had at once, the same wherever and however it is cut.

A matrix is not drawn element by element: its rows are windows into one pool of random numbers, each starting where a
hash of the matrix' name and the row's number says. Cutting windows costs what copying memory does.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

POOL_SIZE = 262_139
"""Start points of windows: the largest prime below 2**18. Small enough for a processor's second-level cache."""
MAX_ROW = 1 << 16  # elements of the longest row


class NoisePool:
    """Uniform numbers of mean 0 and variance 1, in a stored dtype.

    Rows of one matrix start at different places (the step is coprime to the pool's size), so no two are equal; they do
    overlap, shifted. Drawn from the raw bits of a counter (Philox), hence the same on every machine.
    """

    def __init__(self, seed: int, stream: str, dtype: torch.dtype) -> None:
        self._key = f"{seed}/{stream}"
        self._dtype = dtype
        bits = np.random.Philox(key=_hashed(self._key)).random_raw(POOL_SIZE)
        uniform = (bits >> np.uint64(11)).astype(np.float64) / (1 << 53)
        once = (uniform - 0.5) * 12**0.5
        self._pool = torch.from_numpy(np.concatenate([once, once[:MAX_ROW]]).astype(np.float32))
        self._scaled: dict[float, Tensor] = {}

    def rows(self, name: str, rows: np.ndarray, columns: slice, gain: float = 1.0) -> Tensor:
        """Rows by number, int64 ``[R]``, of the matrix called ``name``, times ``gain``: ``[R, C]`` in the dtype."""
        width = columns.stop - columns.start
        if not len(rows) or not width:
            return torch.empty(len(rows), width, dtype=self._dtype)
        word = _hashed(f"{self._key}/{name}")
        start, step = word % POOL_SIZE, 1 + (word >> 64) % (POOL_SIZE - 1)
        begins = (start + rows.astype(np.int64) * step) % POOL_SIZE + columns.start
        # NumPy copies windows at the speed of memory, torch does not; it has no bfloat16, so the bits are copied.
        bits = torch.int32 if self._dtype.itemsize == 4 else torch.int16
        pool = self._in_dtype(gain).view(bits).numpy()
        windows = np.lib.stride_tricks.sliding_window_view(pool, width)[begins]
        return torch.from_numpy(windows).view(self._dtype)

    def _in_dtype(self, gain: float) -> Tensor:
        if gain not in self._scaled:
            self._scaled[gain] = (self._pool * gain).to(self._dtype)
        return self._scaled[gain]


def _hashed(text: str) -> int:
    """128 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
