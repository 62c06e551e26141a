"""Iteration-level scheduling (continuous batching after Orca, Yu et al. 2022), with chunked prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from treespec.request import Request, RequestStatus


@dataclass(frozen=True)
class PlannedRow:
    """A request's part in the next step: so many more prompt tokens, and a decoding if that completes the prompt."""

    request: Request
    num_prompt_tokens: int  # uncached prompt tokens to process, the last of the prompt not counted

    @property
    def decodes(self) -> bool:
        """Whether this row reaches the last known token and so emits."""
        return self.request.num_cached + self.num_prompt_tokens == self.request.num_tokens - 1


class Scheduler:
    """Requests join and leave between steps; running requests decode first, prompts take what budget is left.

    The budget counts certain tokens: one per decoding request and every prompt token. Speculated nodes come on
    top, bounded by each request's tree.
    """

    def __init__(self, max_requests_per_batch: int, max_tokens_per_batch: int) -> None:
        assert max_requests_per_batch >= 1 and max_tokens_per_batch >= 1
        self._max_requests = max_requests_per_batch
        self._max_tokens = max_tokens_per_batch
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []

    def add(self, requests: Iterable[Request]) -> None:
        """Queue requests in arrival order."""
        self._waiting.extend(requests)

    @property
    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._waiting or self._running)

    def retire(self) -> None:
        """Drop finished requests from the batch."""
        self._running = [request for request in self._running if request.status is RequestStatus.RUNNING]

    def admit(self) -> list[Request]:
        """Requests that join now, first come first served."""
        admitted = []
        while self._waiting and len(self._running) < self._max_requests:
            request = self._waiting.popleft()
            request.status = RequestStatus.RUNNING
            self._running.append(request)
            admitted.append(request)
        return admitted

    def plan(self) -> list[PlannedRow]:
        """The rows of the next step, decoding requests before prompts; never empty while requests run."""
        decoding = [r for r in self._running if r.num_cached == r.num_tokens - 1]
        prompts = [r for r in self._running if r.num_cached < r.num_tokens - 1]
        rows = [PlannedRow(request, 0) for request in decoding]
        budget = self._max_tokens - len(rows)
        for request in prompts:
            # A prompt's last token decodes in the same pass, so it is counted beside the chunk.
            chunk = min(request.num_tokens - 1 - request.num_cached, budget)
            if chunk < 1:
                break
            rows.append(PlannedRow(request, chunk))
            budget -= chunk + rows[-1].decodes
        assert rows or not self._running
        return rows
