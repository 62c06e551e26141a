"""Forces a recorded request through the engine again: what was proposed is proposed, what was emitted is emitted.

Legend: N nodes of a tree, T steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from treespec.audit.divergence import Divergence, Replay, Step, Verdict, judge
from treespec.config import ModelRef
from treespec.model.decoder import Decoder
from treespec.model.loader import open_model
from treespec.model.memory import require_room
from treespec.model.synthetic.checkpoint import open_checkpoint
from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.parallel.mesh import ParallelMesh
from treespec.request import Request, SamplingParams
from treespec.runner import ModelRunner
from treespec.scheduler import Scheduler
from treespec.serving.engine import Engine
from treespec.tree import Contract, Proposals, TokenTree
from treespec.verify import VerifyResult

RunnerFactory = Callable[[Decoder, int, int], ModelRunner]
"""A runner from a decoder, a number of regions and their capacity."""

WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}


class _Script:
    """Drafter, verifier and observer of a replay: step by step what was recorded, whatever the logits say."""

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = False

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self.logits: list[Tensor] = []  # per step [N, V]

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:  # noqa: ARG002
        return [Proposals.deterministic(self._steps[len(self.logits)].tree)]

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        pass

    def forget(self, request: Request) -> None:
        pass

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:  # noqa: ARG002
        return [self._steps[len(self.logits)].result for _ in proposals]

    def on_verified(
        self,
        requests: Sequence[Request],
        proposals: Sequence[Proposals],  # noqa: ARG002
        logits_TV: Tensor,
        results: Sequence[VerifyResult],  # noqa: ARG002
    ) -> None:
        if requests:
            self.logits.append(logits_TV.clone())


def replay(decoder: Decoder, make_runner: RunnerFactory, prompt: Sequence[int], steps: Sequence[Step]) -> list[Tensor]:
    """Logits ``[N, V]`` of every step: the real engine, teacher-forced."""
    num_new = sum(len(step.emitted) for step in steps)
    capacity = len(prompt) + num_new + max(len(step.tree) for step in steps)
    params = SamplingParams(max_new_tokens=num_new, max_sequence_length=capacity, ignore_eos=True)
    script = _Script(steps)
    engine = Engine(
        make_runner(decoder, 1, capacity), script, script, Scheduler(1, len(prompt)), _no_text, script.on_verified
    )
    engine.add([Request(0, tuple(prompt), params)])
    engine.run()
    assert len(script.logits) == len(steps)
    return script.logits


def plain_steps(prompt: Sequence[int], output: Sequence[int]) -> list[Step]:
    """The steps of incremental decoding that emit ``output``."""
    roots = [prompt[-1], *output[:-1]]
    return [Step(TokenTree.root(root), VerifyResult((), token)) for root, token in zip(roots, output, strict=True)]


def diagnose(
    divergence: Divergence,
    prompt: Sequence[int],
    expected: Sequence[int],
    steps: Sequence[Step],
    decoders: tuple[Decoder, Decoder],
    make_runner: RunnerFactory = ModelRunner,
) -> Verdict:
    """Replay both paths in the run's dtype and in a wider one (the two ``decoders``, of equal weights) and judge.

    ``expected`` is the incremental output, ``steps`` what the speculative run verified up to the divergence.
    """
    plain = plain_steps(prompt, expected[: divergence.position + 1])
    run, wide = (
        Replay(
            plain_TV=torch.cat(replay(decoder, make_runner, prompt, plain)),
            verify_V=replay(decoder, make_runner, prompt, steps)[-1][divergence.node],
        )
        for decoder in decoders
    )
    return judge(divergence, run, wide)


def wider_decoder(ref: ModelRef, dtype: torch.dtype, device: torch.device) -> Decoder:
    """The model with its weights rounded to ``dtype``, computing in a dtype of more digits. Raises CapacityError."""
    opened = open_model(ref)
    checkpoint = open_checkpoint(ref.path)
    require_room(checkpoint.num_elements(), ref, opened.spec, WIDER[dtype], device)
    spec, weights = opened.weights(checkpoint)
    rounded = {name: tensor[:].to(dtype) for name, tensor in weights.items()}
    return opened.family.decoder(spec, rounded, WIDER[dtype], device, ParallelMesh(), None)


def _no_text(token_ids: Sequence[int]) -> str:  # noqa: ARG001
    raise AssertionError("a replay has no stop strings")
