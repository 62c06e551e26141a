"""Which layers and heads a rank holds: an object made from a configuration, never a global."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RANKS = 1
"""Processes that can serve one model together; a mesh may describe more than the engine can run."""


@dataclass(frozen=True)
class ParallelMesh:
    """Ranks on two axes: tensor (inside a layer) and pipeline (consecutive layers)."""

    tensor_degree: int = 1
    pipeline_degree: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.num_ranks

    @property
    def num_ranks(self) -> int:
        """Processes that serve one model together."""
        return self.tensor_degree * self.pipeline_degree

    def layers(self, num_layers: int) -> range:
        """Layers of this rank's stage; earlier stages take the remainder."""
        stage = self.rank // self.tensor_degree
        base, remainder = divmod(num_layers, self.pipeline_degree)
        start = stage * base + min(stage, remainder)
        return range(start, start + base + (stage < remainder))

    def heads(self, num_heads: int) -> range:
        """Key/value heads of this rank."""
        share = num_heads // self.tensor_degree
        start = (self.rank % self.tensor_degree) * share
        return range(start, start + share)
