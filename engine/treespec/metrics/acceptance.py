"""How often the k-th proposal below a node is the accepted one, by depth: counted online or over a whole run.

Torch-free. Legend: D depths, index 0 for the root's children; K ranks of proposals below a node, best first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR = (0.65, 0.3, 0.2, 0.15, 0.1)
"""Acceptance of a rank where every better one failed, before anything was seen; the last holds for all further ranks.

Rounded from SpecInfer's table 1 (greedy): the first five proposals succeed for 62-70, 72-81, 77-85, 80-88, 82-89 %.
"""
PRIOR_WEIGHT = 4.0  # observations that the prior, or a rank's mean over the depths, counts for


@dataclass(frozen=True)
class StepOutcome:
    """What verification made of one request's tree: proposals below each node it reached, and which was accepted.

    ``offered`` has an entry more than ``ranks`` where all proposals below the last node failed, and none more where
    that node was a leaf.
    """

    offered: tuple[int, ...]
    ranks: tuple[int, ...]  # 0 is the first proposal

    def __post_init__(self) -> None:
        assert len(self.offered) - len(self.ranks) in (0, 1) and all(width > 0 for width in self.offered)
        assert all(rank < width for rank, width in zip(self.ranks, self.offered, strict=False))

    @property
    def num_emitted(self) -> int:
        """Accepted proposals and the target's own token."""
        return len(self.ranks) + 1


class RankAcceptance:
    """Estimates acceptance by depth and rank, conditional on reaching the parent.

    What is counted is each rank's chance after all better ones failed: ranks that small trees never offer then keep
    the prior's share of what is left, and the probabilities below a node never sum to more than 1. A depth leans on
    the rank's mean over all depths, and that on the prior, as long as it has seen little. With ``memory`` an outcome
    weighs less the more came after it; without, all weigh the same.
    """

    def __init__(self, max_depth: int, max_width: int, memory: float | None = None) -> None:
        assert max_depth >= 1 and max_width >= 1 and (memory is None or memory > 1)
        self._tried_DK = np.zeros((max_depth, max_width))
        self._accepted_DK = np.zeros((max_depth, max_width))
        self._prior_K = np.array([PRIOR[min(rank, len(PRIOR) - 1)] for rank in range(max_width)])
        self._kept = 1.0 if memory is None else 1 - 1 / memory

    def update(self, outcomes: Sequence[StepOutcome], weight: float = 1.0) -> None:
        """Count the outcomes of one step, each as ``weight`` outcomes."""
        decay = self._kept ** (weight * sum(bool(outcome.offered) for outcome in outcomes))
        self._tried_DK *= decay
        self._accepted_DK *= decay
        D, K = self._tried_DK.shape
        for outcome in outcomes:
            for depth, width in enumerate(outcome.offered[:D]):
                rank = outcome.ranks[depth] if depth < len(outcome.ranks) else width
                self._tried_DK[depth, : min(rank + 1, width)] += weight
                if rank < min(width, K):
                    self._accepted_DK[depth, rank] += weight

    def table(self) -> np.ndarray:
        """``[D, K]``: probability that proposal k of a reached node of depth d is the accepted one."""
        tried_K, accepted_K = self._tried_DK.sum(axis=0), self._accepted_DK.sum(axis=0)
        mean_K = (accepted_K + PRIOR_WEIGHT * self._prior_K) / (tried_K + PRIOR_WEIGHT)
        rate_DK = (self._accepted_DK + PRIOR_WEIGHT * mean_K) / (self._tried_DK + PRIOR_WEIGHT)
        failed_DK = np.cumprod(1 - rate_DK, axis=1)
        failed_DK = np.concatenate([np.ones((len(rate_DK), 1)), failed_DK[:, :-1]], axis=1)
        return np.asarray(rate_DK * failed_DK)
