"""One step of speculative serving: schedule, draft, forward, verify, commit. One path for every mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treespec.draft.policy import step_outcome
from treespec.draft.protocol import Drafter
from treespec.metrics.counts import PassProfile, RequestProfile
from treespec.metrics.stopwatch import Stopwatch
from treespec.ops.draws import VerifyDraws
from treespec.ops.sampling import LikeliestRows, SamplingRule, TargetRows
from treespec.request import Decode, Request, RequestStatus
from treespec.runner import ForwardRow, ModelRunner, Wanted
from treespec.scheduler import PlannedRow, Scheduler
from treespec.serving.request_rows import request_rows
from treespec.tree import Proposals
from treespec.tree.layout import LaidTree, Layout, node_results, whole_tree
from treespec.verify import Verifier, VerifyResult

OnVerified = Callable[[Sequence[Request], Sequence[Proposals], Tensor, Sequence[VerifyResult]], None]
"""Told after verification and before commit: requests, their trees, logits (a row per node) and verdicts."""


@dataclass(frozen=True)
class _Judged:
    """A tree that the target is to judge, and how it lies in the rows of the pass."""

    proposals: Proposals
    laid: LaidTree


@dataclass(frozen=True)
class _Part:
    """A request's part in a pass; without a tree where a prompt goes on in a later step."""

    request: Request
    num_certain: int  # prompt tokens before the tree's root
    judged: _Judged | None


class Engine:
    """Serves requests with a target, a drafter and a verifier; the target's cache is its own while it works."""

    def __init__(
        self,
        runner: ModelRunner,
        drafter: Drafter,
        verifier: Verifier,
        scheduler: Scheduler,
        decode: Decode,
        on_verified: OnVerified | None = None,
        layout: Layout = whole_tree,
    ) -> None:
        self._runner = runner
        self._drafter = drafter
        self._verifier = verifier
        self._scheduler = scheduler
        self._decode = decode
        self._on_verified = on_verified
        self._layout = layout
        # A verifier that only ever takes the likeliest token needs no logits, unless somebody listens to them.
        self._wanted = Wanted.LIKELIEST if verifier.greedy_only and on_verified is None else Wanted.LOGITS
        self._regions: dict[int, int] = {}
        self._watch = Stopwatch()
        self.profiles: dict[int, RequestProfile] = {}
        self.totals = PassProfile()

    def add(self, requests: Sequence[Request]) -> None:
        """Queue requests."""
        self._scheduler.add(requests)

    def run(self) -> PassProfile:
        """Serve until nothing is left; the clock starts here."""
        self._watch = Stopwatch()
        while self._scheduler.has_work:
            self.step()
        self._watch.charge("other")
        self.totals.time_us = self._watch.split_us()
        self.totals.wall_us = sum(self.totals.time_us.values())
        return self.totals

    def step(self) -> list[Request]:
        """One iteration: at most one target pass for decoding requests and one for prompts; returns who finished."""
        self._admit()
        plan = self._scheduler.plan()
        decoding = [row.request for row in plan if row.num_prompt_tokens == 0]
        prompts = [row for row in plan if row.num_prompt_tokens > 0]
        finished = self._decode_step(decoding) if decoding else []
        if prompts:
            finished += self._prompt_step(prompts)
        self._scheduler.retire()
        return finished

    def _admit(self) -> None:
        for request in self._scheduler.admit():
            self._regions[request.request_id] = self._runner.allocator.admit()
            self.profiles[request.request_id] = RequestProfile(start_us=self._watch.now_us())

    def _decode_step(self, requests: list[Request]) -> list[Request]:
        self._watch.charge("other")
        proposals = self._drafter.propose(requests, [_max_depth(request) for request in requests])
        self._watch.charge("draft")
        parts = [_Part(request, 0, self._judged(item)) for request, item in zip(requests, proposals, strict=True)]
        accepted = self._run(parts)
        running = [request for request in requests if request.status is RequestStatus.RUNNING]
        self._drafter.observe(running, [accepted[request.request_id] for request in running])
        self._watch.charge("draft")
        return [request for request in requests if request.status is RequestStatus.FINISHED]

    def _prompt_step(self, plan: list[PlannedRow]) -> list[Request]:
        parts = []
        for row in plan:
            judged = self._judged(Proposals.none(row.request.last_token_id)) if row.decodes else None
            parts.append(_Part(row.request, row.num_prompt_tokens, judged))
        self._run(parts)
        return [row.request for row in plan if row.request.status is RequestStatus.FINISHED]

    def _judged(self, proposals: Proposals) -> _Judged:
        return _Judged(proposals, self._layout(proposals.tree))

    def _run(self, parts: list[_Part]) -> dict[int, tuple[int, ...]]:
        """Forward, verify and commit; returns the accepted nodes that were kept, per request id."""
        rows = [row for part in parts for row in self._forward_rows(part)]
        self._watch.charge("build")
        result = self._runner.result(self._runner.submit(rows, self._wanted)).rows
        self.totals.num_target_steps += 1
        self.totals.num_target_rows += sum(len(row.token_ids) for row in rows)
        self._watch.charge("forward")
        verdicts = self._verify([(part.request, part.judged) for part in parts if part.judged is not None], result)
        self._watch.charge("verify")
        accepted = self._commit(parts, verdicts)
        self._watch.charge("commit")
        return accepted

    def _verify(self, judged: list[tuple[Request, _Judged]], results: Tensor) -> dict[int, VerifyResult]:
        if not judged:
            return {}
        requests, proposals = [request for request, _ in judged], [item.proposals for _, item in judged]
        rules = [r.params.sampling for r, item in zip(requests, proposals, strict=True) for _ in range(len(item.tree))]
        draws = VerifyDraws([request.chance for request in requests], [request.num_tokens - 1 for request in requests])
        target = _by_node([item.laid for _, item in judged], results)
        verdicts = self._verifier.verify(proposals, self._target_rows(target, rules), draws)
        if self._on_verified is not None:
            self._on_verified(requests, proposals, target, verdicts)
        return {request.request_id: verdict for request, verdict in zip(requests, verdicts, strict=True)}

    def _target_rows(self, target: Tensor, rules: Sequence[SamplingRule]) -> TargetRows:
        if self._wanted is Wanted.LIKELIEST:
            return LikeliestRows(target, rules, self._runner.decoder.spec.vocab_size)
        return TargetRows(target, rules)

    def _forward_rows(self, part: _Part) -> list[ForwardRow]:
        request, laid = part.request, None if part.judged is None else part.judged.laid
        self.profiles[request.request_id].num_target_steps += 1
        region = self._regions[request.request_id]
        return request_rows(request, part.num_certain, laid, self._runner.allocator, region)

    def _commit(self, parts: list[_Part], verdicts: dict[int, VerifyResult]) -> dict[int, tuple[int, ...]]:
        accepted: dict[int, tuple[int, ...]] = {}
        paths = []
        for part in parts:
            request, offsets = part.request, list(range(part.num_certain))
            if part.judged is not None:
                kept = self._emit(request, part.judged.proposals, verdicts[request.request_id])
                accepted[request.request_id] = kept
                offsets += [part.num_certain + place for place in part.judged.laid.places([0, *kept])]
            request.num_cached += len(offsets)
            paths.append((self._regions[request.request_id], offsets))
        self._runner.commit(paths)
        for part in parts:
            if part.request.status is RequestStatus.FINISHED:
                self._finish(part.request)
        return accepted

    def _emit(self, request: Request, proposals: Proposals, verdict: VerifyResult) -> tuple[int, ...]:
        """Append what was verified, up to the stopping rule; returns the nodes whose tokens are now context."""
        token_ids = [int(proposals.tree.token_ids[node]) for node in verdict.accepted_nodes]
        num_taken = request.append([*token_ids, verdict.next_token_id], self._decode)
        profile = self.profiles[request.request_id]
        profile.num_draft_tokens += len(proposals.tree) - 1
        profile.accepted_per_step.append(num_taken - 1)
        profile.count(step_outcome(proposals, verdict.accepted_nodes))
        profile.finish_us = self._watch.now_us()
        profile.first_token_us = profile.first_token_us or profile.finish_us
        self.totals.num_output_tokens += num_taken
        return verdict.accepted_nodes[: num_taken - 1]

    def _finish(self, request: Request) -> None:
        self._drafter.forget(request)
        self._runner.allocator.free(self._regions.pop(request.request_id))


def _by_node(trees: Sequence[LaidTree], results: Tensor) -> Tensor:
    """From a result per token of the rows to one per node, tree after tree; as they are where each stands once."""
    order = node_results(trees)
    if np.array_equal(order, np.arange(len(results))):
        return results
    return results[torch.from_numpy(order).to(results.device)]


def _max_depth(request: Request) -> int:
    """Depth of the deepest useful tree: the last token that a request may emit is the target's own.

    A request's first token is emitted without a tree, as it is where its prompt ends inside a chunk: where chunks end
    depends on the batch, and what is drawn must not.
    """
    return request.num_remaining - 1 if request.output_token_ids else 0
