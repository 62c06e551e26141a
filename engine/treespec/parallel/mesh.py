"""Which layers, heads and vocabulary entries a rank holds: an object made from a configuration, never a global."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class ParallelMesh:
    """Ranks on two axes: tensor (inside a layer) and pipeline (consecutive layers); tensor ranks are neighbours.

    ``layer_split`` says how many layers each stage holds; None splits evenly, earlier stages taking the remainder.
    """

    tensor_degree: int = 1
    pipeline_degree: int = 1
    rank: int = 0
    layer_split: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.num_ranks
        assert self.layer_split is None or len(self.layer_split) == self.pipeline_degree

    @property
    def num_ranks(self) -> int:
        """Processes that serve one model together."""
        return self.tensor_degree * self.pipeline_degree

    @property
    def tensor_rank(self) -> int:
        """Place inside the stage."""
        return self.rank % self.tensor_degree

    @property
    def stage(self) -> int:
        """Place in the pipeline."""
        return self.rank // self.tensor_degree

    @property
    def is_first_stage(self) -> bool:
        """Whether tokens come in here."""
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether logits come out here."""
        return self.stage == self.pipeline_degree - 1

    @property
    def driver(self) -> int:
        """The rank that decides: of the last stage, where verification finds the target's logits."""
        return (self.pipeline_degree - 1) * self.tensor_degree

    @property
    def is_driver(self) -> bool:
        """Whether this rank decides."""
        return self.rank == self.driver

    @property
    def stage_ranks(self) -> list[int]:
        """Ranks that share this rank's layers."""
        return self.ranks_of_stage(self.stage)

    def ranks_of_stage(self, stage: int) -> list[int]:
        """Ranks that share the layers of a stage."""
        first = stage * self.tensor_degree
        return list(range(first, first + self.tensor_degree))

    def num_micro_batches(self, num_tokens: int, min_tokens: int) -> int:
        """Parts that a pass is split into: at most one per stage, none of fewer than so many tokens on average.

        m parts cross p stages in the time of m + p - 1, each reading all weights: as long as reading them is what
        takes the time, parts make a pass longer.
        """
        return max(1, min(self.pipeline_degree, num_tokens // min_tokens))

    def layers(self, num_layers: int) -> range:
        """Layers of this rank's stage."""
        counts = self.layer_split or tuple(map(len, _shares(num_layers, self.pipeline_degree)))
        assert sum(counts) == num_layers
        start = [0, *accumulate(counts)][self.stage]
        return range(start, start + counts[self.stage])

    def heads(self, num_heads: int) -> range:
        """Query heads of this rank."""
        assert num_heads % self.tensor_degree == 0
        share = num_heads // self.tensor_degree
        return range(self.tensor_rank * share, (self.tensor_rank + 1) * share)

    def kv_heads(self, num_kv_heads: int) -> range:
        """Key/value heads of this rank; where there are fewer than ranks, several ranks hold the same one."""
        if num_kv_heads >= self.tensor_degree:
            return self.heads(num_kv_heads)
        assert self.tensor_degree % num_kv_heads == 0
        head = self.tensor_rank * num_kv_heads // self.tensor_degree
        return range(head, head + 1)

    def share(self, count: int) -> range:
        """This rank's part of something that any rank may hold any part of: FFN columns, vocabulary entries."""
        return self.shares(count)[self.tensor_rank]

    def shares(self, count: int) -> list[range]:
        """The parts of all ranks of a stage."""
        return _shares(count, self.tensor_degree)

    def largest_share(self, count: int) -> int:
        """The largest of the parts, which earlier ranks hold."""
        return len(self.shares(count)[0])


def _shares(count: int, num_parts: int) -> list[range]:
    base, remainder = divmod(count, num_parts)
    ends = list(accumulate(base + (part < remainder) for part in range(num_parts)))
    return [range(end - base - (part < remainder), end) for part, end in enumerate(ends)]
