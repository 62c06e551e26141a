"""Raw counts per request and per pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from treespec.metrics.acceptance import StepOutcome


@dataclass
class RequestProfile:
    """What happened to one request; times are microseconds on the engine's monotonic clock."""

    num_target_steps: int = 0  # target passes it took part in, prompt chunks included
    num_draft_tokens: int = 0  # speculated nodes that the target verified
    accepted_per_step: list[int] = field(default_factory=list)  # per decoding step; emitted = accepted + 1
    # [depth][rank]: steps that reached a node of this depth which had such a proposal, and that accepted it
    offered: list[list[int]] = field(default_factory=list)
    accepted: list[list[int]] = field(default_factory=list)
    start_us: int = 0  # admission to the batch
    first_token_us: int = 0
    finish_us: int = 0

    @property
    def latency_us(self) -> int:
        """Admission to last token: queueing excluded, prompt processing included."""
        return self.finish_us - self.start_us

    def count(self, outcome: StepOutcome) -> None:
        """Add what a step offered and accepted by depth and rank."""
        for depth, width in enumerate(outcome.offered):
            for table in (self.offered, self.accepted):
                _grow(table, depth, width)
            for rank in range(width):
                self.offered[depth][rank] += 1
        for depth, rank in enumerate(outcome.ranks):
            self.accepted[depth][rank] += 1

    @property
    def num_accepted_tokens(self) -> int:
        """Speculated tokens that were emitted."""
        return sum(self.accepted_per_step)


def _grow(table: list[list[int]], depth: int, width: int) -> None:
    table.extend([] for _ in range(depth + 1 - len(table)))
    table[depth].extend([0] * (width - len(table[depth])))


@dataclass
class PassProfile:
    """Totals of one pass over the prompts; the parts of ``time_us`` sum to ``wall_us``."""

    num_target_steps: int = 0  # batched forward passes of the target
    num_target_rows: int = 0  # tokens that these computed, prompts included, padding not
    num_output_tokens: int = 0
    wall_us: int = 0
    time_us: dict[str, int] = field(default_factory=dict)
    # "driver" and "all_ranks" -> kind -> messages and bytes; empty on one rank
    traffic: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    # "num_units", "num_bytes" and "wait_us" of the target's weights that came by on this rank; empty if all stay
    offload: dict[str, int] = field(default_factory=dict)
