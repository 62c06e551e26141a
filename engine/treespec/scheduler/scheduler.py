"""Iteration-level scheduling (continuous batching after Orca, Yu et al. 2022), with chunked prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from treespec.request import Request, RequestStatus


@dataclass(frozen=True)
class PlannedRow:
    """A request's part in the next step: so many more prompt tokens, and a decoding if the budget has room for it."""

    request: Request
    num_prompt_tokens: int  # uncached prompt tokens to process, the last of the prompt not counted
    decodes: bool  # whether this row takes the last known token too, and so emits


class Scheduler:
    """Requests join and leave between steps; running requests decode first, prompts take what budget is left.

    The budget counts certain tokens: one per decoding request and every prompt token. Speculated nodes come on
    top, bounded by each request's tree and its layout in the pass. A full batch must be able to decode, so there is
    room for every request.
    """

    def __init__(self, max_requests_per_batch: int, max_tokens_per_batch: int) -> None:
        assert 1 <= max_requests_per_batch <= max_tokens_per_batch
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
        rows = [PlannedRow(request, 0, decodes=True) for request in decoding]
        budget = self._max_tokens - len(rows)
        for request in prompts:
            if budget < 1:
                break
            needed = request.num_tokens - 1 - request.num_cached
            # A prompt's last token decodes in the same pass where it still fits, otherwise in the next.
            row = PlannedRow(request, min(needed, budget), decodes=needed < budget)
            rows.append(row)
            budget -= row.num_prompt_tokens + row.decodes
        assert rows or not self._running
        return rows
