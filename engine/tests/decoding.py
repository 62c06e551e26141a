"""Decoders, engines and reference decodings for tests; the references use no cache and no tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treespec.config import ModelRef
from treespec.draft.growth import FixedTopology
from treespec.draft.protocol import Drafter, NoDrafter
from treespec.draft.ssm import SsmDrafter
from treespec.metrics.counts import PassProfile, RequestProfile
from treespec.model.decoder import Decoder
from treespec.model.loader import LoadedModel, load_model
from treespec.parallel.mesh import ParallelMesh
from treespec.request import FinishReason, Request, SamplingParams
from treespec.runner import ForwardRow, ModelRunner
from treespec.scheduler import Scheduler
from treespec.serving import Engine
from treespec.tree import Topology
from treespec.tree.layout import Layout, whole_tree
from treespec.verify import GreedyVerifier

CLEAR_GAP = 1e-3
"""Logits are equal to about 1e-6 between batches; a gap this wide keeps a greedy choice from being rounding's."""

CHAINS = tuple((1,) * length for length in range(1, 9))
WIDE_TREE = (2, 2, 1)  # SpecInfer, figure 3
PAPER_TREE = (1, 1, 3, 1, 1, 1, 1, 1)  # SpecInfer, section 6.1


def load(folder: Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A model folder on the CPU."""
    return load_model(ModelRef(path=folder), dtype, torch.device("cpu"), ParallelMesh())


def chain_row(runner: ModelRunner, region: int, token_ids: Sequence[int], num_logits: int) -> ForwardRow:
    """Tokens that follow the region's context one after the other."""
    n, context = len(token_ids), runner.allocator.context_length(region)
    return ForwardRow(
        lease=runner.allocator.lease(region, n),
        token_ids=np.asarray(token_ids, dtype=np.int64),
        positions=np.arange(context, context + n, dtype=np.int64),
        visible=np.tri(n, dtype=bool),
        num_logits=num_logits,
    )


def prefill(runner: ModelRunner, token_ids: Sequence[int]) -> tuple[int, Tensor]:
    """A new region with ``token_ids`` as its context, and the logits of every token ``[T, V]``."""
    region = runner.allocator.admit()
    row = chain_row(runner, region, token_ids, len(token_ids))
    logits_TV = runner.result(runner.submit([row])).logits_RV
    runner.commit([(region, range(len(token_ids)))])
    return region, logits_TV


def logits_of(decoder: Decoder, token_ids: Sequence[int]) -> Tensor:
    """``[T, V]`` of one sequence, computed from nothing."""
    return prefill(ModelRunner(decoder, 1, len(token_ids)), token_ids)[1]


@dataclass(frozen=True)
class GreedyText:
    """A prompt, its greedy continuation, and the smallest gap between the two likeliest tokens on the way."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    gap: float


def greedy_text(decoder: Decoder, prompt: Sequence[int], num_tokens: int) -> GreedyText:
    """Token by token, every time from nothing."""
    token_ids, gap = list(prompt), float("inf")
    for _ in range(num_tokens):
        top = logits_of(decoder, token_ids)[-1].topk(2)
        gap = min(gap, float(top.values[0] - top.values[1]))
        token_ids.append(int(top.indices[0]))
    return GreedyText(tuple(prompt), tuple(token_ids[len(prompt) :]), gap)


@dataclass(frozen=True)
class Pair:
    """A target and a draft on disk, with prompts whose greedy continuations are known and clear."""

    target_folder: Path
    draft_folder: Path
    texts: tuple[GreedyText, ...]

    @cached_property
    def target(self) -> LoadedModel:
        """The target in float32."""
        return load(self.target_folder)

    @cached_property
    def draft(self) -> LoadedModel:
        """The draft in float32."""
        return load(self.draft_folder)

    @cached_property
    def exact_target(self) -> LoadedModel:
        """The target in float64."""
        return load(self.target_folder, torch.float64)

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The prompts alone."""
        return [text.prompt for text in self.texts]

    def expected(self, num_tokens: int) -> list[list[int]]:
        """The first ``num_tokens`` greedy tokens of every prompt."""
        assert all(num_tokens <= len(text.continuation) for text in self.texts)
        return [list(text.continuation[:num_tokens]) for text in self.texts]


@dataclass(frozen=True)
class Serving:
    """How a pass is served; the defaults hold every tiny model's text."""

    expansion: tuple[int, ...] = ()
    batch_size: int = 3
    max_tokens_per_batch: int = 64
    max_new_tokens: int = 20
    max_sequence_length: int = 120
    ignore_eos: bool = True
    eos_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    layout: Layout = whole_tree

    def with_(self, **changes: Any) -> Serving:
        """The same with changes."""
        return replace(self, **changes)

    def params(self) -> SamplingParams:
        """The stopping rule."""
        return SamplingParams(self.max_new_tokens, self.max_sequence_length, self.ignore_eos, self.stop_strings)

    def request(self, request_id: int, prompt: Sequence[int]) -> Request:
        """A request under this rule."""
        return Request(request_id, tuple(prompt), self.params(), self.eos_token_ids)


@dataclass(frozen=True)
class Served:
    """What a pass made, request by request in the order given."""

    requests: list[Request]
    profiles: list[RequestProfile]
    totals: PassProfile

    @property
    def token_ids(self) -> list[list[int]]:
        """Generated tokens."""
        return [request.output_token_ids for request in self.requests]

    @property
    def reasons(self) -> list[FinishReason | None]:
        """Why each ended."""
        return [request.finish_reason for request in self.requests]

    @property
    def accepted_per_step(self) -> list[list[int]]:
        """Accepted drafts of every decoding step."""
        return [profile.accepted_per_step for profile in self.profiles]


def capacity(serving: Serving) -> int:
    """Slots of a region that hold a whole sequence and beside it the tree, or all its paths: they are no fewer."""
    return serving.max_sequence_length + prod(serving.expansion) * (1 + len(serving.expansion))


@dataclass(frozen=True)
class Workbench:
    """An engine with its parts in reach."""

    engine: Engine
    target_runner: ModelRunner
    drafter: Drafter
    draft_runner: ModelRunner | None


def build_engine(target: LoadedModel, draft: LoadedModel | None, serving: Serving) -> Workbench:
    """An engine over fresh caches."""
    runner = ModelRunner(target.decoder, serving.batch_size, capacity(serving))
    drafter: Drafter = NoDrafter()
    draft_runner = None
    if serving.expansion:
        assert draft is not None
        draft_runner = ModelRunner(draft.decoder, serving.batch_size, capacity(serving))
        drafter = SsmDrafter(draft_runner, FixedTopology(Topology.from_expansion(serving.expansion)))
    scheduler = Scheduler(serving.batch_size, serving.max_tokens_per_batch)
    decode = target.tokenizer.decode
    engine = Engine(runner, drafter, GreedyVerifier(), scheduler, decode, layout=serving.layout)
    return Workbench(engine, runner, drafter, draft_runner)


def serve(target: LoadedModel, draft: LoadedModel | None, prompts: Sequence[Sequence[int]], serving: Serving) -> Served:
    """Serve all prompts in one pass."""
    engine = build_engine(target, draft, serving).engine
    requests = [serving.request(index, prompt) for index, prompt in enumerate(prompts)]
    engine.add(requests)
    totals = engine.run()
    return Served(requests, [engine.profiles[request.request_id] for request in requests], totals)


def ragged_prompts(seed: int, count: int, longest: int, vocab_size: int) -> list[list[int]]:
    """Random prompts of lengths 1 to ``longest``, both among them."""
    rng = np.random.default_rng(seed)
    lengths = [1, longest, *rng.integers(2, longest, count - 2).tolist()]
    return [rng.integers(3, vocab_size, length).tolist() for length in lengths]


def clear_texts(
    decoder: Decoder, candidates: Sequence[Sequence[int]], num_tokens: int, count: int
) -> tuple[GreedyText, ...]:
    """Greedy texts of the first ``count`` candidates on whose way no choice is close."""
    clear: list[GreedyText] = []
    for prompt in candidates:
        text = greedy_text(decoder, prompt, num_tokens)
        if text.gap >= CLEAR_GAP:
            clear.append(text)
        if len(clear) == count:
            return tuple(clear)
    raise AssertionError(f"only {len(clear)} of {len(candidates)} prompts have clear greedy texts")
