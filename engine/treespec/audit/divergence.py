"""What a difference between incremental (A) and speculative (B) greedy output is: rounding, or a bug.

Legend: T positions up to the first differing one, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from treespec.request import Request
from treespec.tree import Proposals, TokenTree
from treespec.verify import VerifyResult


class Cause(StrEnum):
    """Why two greedy outputs differ; the first is no fault."""

    NUMERIC = "numeric near-tie"
    ALGORITHMIC = "algorithmic"
    MASK_POSITION_CACHE = "mask, position or cache"


@dataclass(frozen=True)
class Step:
    """What one step verified for one request."""

    tree: TokenTree
    result: VerifyResult

    @property
    def emitted(self) -> list[int]:
        """The tokens that the verdict emits."""
        return [*(int(self.tree.token_ids[node]) for node in self.result.accepted_nodes), self.result.next_token_id]


@dataclass(frozen=True, eq=False)
class Divergence:
    """The first token of a request that differs, and the logits that the verifier chose it from."""

    request_id: int
    position: int  # in the output
    incremental_token: int
    speculative_token: int
    node: int  # of the last step's tree, whose logits decide
    chosen_from_V: Tensor


@dataclass
class StepRecorder:
    """Observes a speculative pass: keeps every step of a request up to the first that departs from ``expected``."""

    expected: Mapping[int, Sequence[int]]  # incremental output by request id
    steps: dict[int, list[Step]] = field(default_factory=dict)
    divergences: dict[int, Divergence] = field(default_factory=dict)

    def __call__(
        self,
        requests: Sequence[Request],
        proposals: Sequence[Proposals],
        logits_TV: Tensor,
        results: Sequence[VerifyResult],
    ) -> None:
        start = 0
        for request, item, result in zip(requests, proposals, results, strict=True):
            if request.request_id not in self.divergences:
                self._record(request, Step(item.tree, result), logits_TV[start : start + len(item.tree)])
            start += len(item.tree)

    def _record(self, request: Request, step: Step, logits_NV: Tensor) -> None:
        self.steps.setdefault(request.request_id, []).append(step)
        first = len(request.output_token_ids)
        expected = self.expected[request.request_id][first:]
        for offset, (theirs, ours) in enumerate(zip(expected, step.emitted, strict=False)):
            if theirs != ours:
                node = (0, *step.result.accepted_nodes)[offset]
                self.divergences[request.request_id] = Divergence(
                    request.request_id, first + offset, theirs, ours, node, logits_NV[node].clone()
                )
                return


@dataclass(frozen=True, eq=False)
class Replay:
    """The prefix forced through both paths in one dtype."""

    plain_TV: Tensor  # one token at a time
    verify_V: Tensor  # the tree that was verified, at the node that decided

    @property
    def noise(self) -> float:
        """Largest difference between the paths where the outputs part."""
        return _distance(self.plain_TV[-1], self.verify_V)


@dataclass(frozen=True)
class Measured:
    """The numbers behind a verdict, all in units of logits."""

    gap: float  # by how much the plain path prefers A's token to B's
    noise: float  # largest difference between the paths
    bound: float  # largest difference that rounding explains
    wide_noise: float  # as noise, in the wider dtype
    wide_bound: float


@dataclass(frozen=True)
class Verdict:
    """Why a request's outputs differ."""

    request_id: int
    position: int
    cause: Cause
    reason: str
    measured: Measured | None = None


def judge(divergence: Divergence, run: Replay, wide: Replay) -> Verdict:
    """Name the cause. ``wide`` computes with the same weights in a dtype of more digits than ``run``.

    No tolerance is chosen freely. What rounding explains is measured: in this prefix the plain path is up to r away
    from the wider dtype, so two correct paths are up to 2 r and one step of the dtype apart. (If B's token is the
    likeliest by its own logits, the gap to A's is at most twice the noise and needs no bound of its own.) The wider
    dtype then confirms: rounding shrinks with its epsilon while a bug does not, and the limit lies halfway between
    the two, on a logarithmic scale.
    """
    dtype, plain_V, own_V = run.plain_TV.dtype, run.plain_TV[-1], divergence.chosen_from_V
    rounding = _distance(run.plain_TV, wide.plain_TV)
    bound = 2 * rounding + _step(dtype, float(plain_V.abs().max()))
    shrinking = math.sqrt(torch.finfo(wide.plain_TV.dtype).eps / torch.finfo(dtype).eps)
    a, b = divergence.incremental_token, divergence.speculative_token
    measured = Measured(
        gap=float(plain_V[a] - plain_V[b]),
        noise=max(run.noise, _distance(plain_V, own_V)),
        bound=bound,
        wide_noise=wide.noise,
        wide_bound=bound * shrinking,
    )
    cause, reason = _cause(measured, own_lead=_lead(own_V, b), plain_lead=_lead(plain_V, a))
    return Verdict(divergence.request_id, divergence.position, cause, reason, measured)


def _cause(measured: Measured, own_lead: float, plain_lead: float) -> tuple[Cause, str]:
    if own_lead > 0:
        return Cause.ALGORITHMIC, "the speculative run chose a token that is not the likeliest by its own logits"
    if measured.noise > measured.bound:
        return Cause.MASK_POSITION_CACHE, "the logits of the two paths differ by more than rounding explains"
    if measured.wide_noise > measured.wide_bound:
        return Cause.MASK_POSITION_CACHE, "the difference between the paths does not shrink in the wider dtype"
    if plain_lead > measured.bound:
        return Cause.ALGORITHMIC, "the incremental run chose a token that is not the likeliest by the plain path"
    return Cause.NUMERIC, "both tokens are within rounding of the likeliest; the wider dtype confirms equal paths"


def _lead(logits_V: Tensor, token: int) -> float:
    """By how much the likeliest token is ahead of ``token``."""
    return float(logits_V.max() - logits_V[token])


def _distance(left: Tensor, right: Tensor) -> float:
    return float((left.double() - right.double()).abs().max())


def _step(dtype: torch.dtype, magnitude: float) -> float:
    """Distance to the next larger number of this dtype."""
    return torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(magnitude)) if magnitude > 0 else 0.0
