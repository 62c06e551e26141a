"""Raw counts per request and per pass."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RequestProfile:
    """What happened to one request; times are microseconds on the engine's monotonic clock."""

    num_target_steps: int = 0  # target passes it took part in, prompt chunks included
    num_draft_tokens: int = 0  # speculated nodes that the target verified
    accepted_per_step: list[int] = field(default_factory=list)  # per decoding step; emitted = accepted + 1
    start_us: int = 0  # admission to the batch
    first_token_us: int = 0
    finish_us: int = 0

    @property
    def latency_us(self) -> int:
        """Admission to last token: queueing excluded, prompt processing included."""
        return self.finish_us - self.start_us

    @property
    def num_accepted_tokens(self) -> int:
        """Speculated tokens that were emitted."""
        return sum(self.accepted_per_step)


@dataclass
class PassProfile:
    """Totals of one pass over the prompts; the parts of ``time_us`` sum to ``wall_us``."""

    num_target_steps: int = 0  # batched forward passes of the target
    num_output_tokens: int = 0
    wall_us: int = 0
    time_us: dict[str, int] = field(default_factory=dict)
