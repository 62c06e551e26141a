"""Where uniforms come from: a function of seed, request, purpose, position and index, never of a shared stream.

A batch, a replica or a migrated request then draws the same numbers. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

WORD = (1 << 64) - 1


class Purpose(IntEnum):
    """What a uniform decides. Numbers of different purposes are independent: none is ever used twice."""

    DRAFT = 0  # which tokens a drafter proposes
    ACCEPT = 1  # whether a proposal is accepted
    EMIT = 2  # which token the target itself emits


@dataclass(frozen=True)
class Chance:
    """One request's source of uniforms."""

    seed: int
    request_id: int

    def stream(self, purpose: Purpose, position: int, source: int = 0) -> np.random.Generator:
        """Uniforms of one purpose at one position; the index is the order in which they are taken.

        ``source`` tells drafters of a portfolio apart. Counter-based (Philox, Salmon et al. 2011): streams of
        different arguments do not overlap below 2**64 draws.
        """
        key = [self.seed & WORD, self.request_id & WORD]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, position, int(purpose), source]))
