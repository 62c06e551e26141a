"""The Python interface: load a pair once, then generate or stream.

from treespec.api import SamplingParams, load

llm = load("models/embedded/llama/target", draft="models/embedded/llama/draft")
for completion in llm.generate(["def read_lines(path):"], SamplingParams(max_new_tokens=32)):
    print(completion.text)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# Threads that spin between operations bring a shared machine to a halt; torch reads this once, when first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from treespec.config import Sampling, Scenario, validate_run_config
from treespec.errors import ConfigError, PromptError
from treespec.metrics.counts import RequestProfile
from treespec.prompts import not_unicode
from treespec.request import FinishReason, Request, RequestStatus, SamplingParams
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.engine import Engine
from treespec.serving.prompts import encode_prompts

__all__ = [
    "Completion",
    "Engine",
    "LanguageModel",
    "Piece",
    "Request",
    "Sampling",
    "SamplingParams",
    "generate",
    "load",
]

Params = SamplingParams | Sequence[SamplingParams] | None
"""For all prompts, or one for each; None: greedy, up to 128 tokens."""

PAPER_TREE = (1, 1, 3, 1, 1, 1, 1, 1)
MAX_TREE_NODES = 64
UNFINISHED_CHARACTER = "\ufffd"  # what a decoder shows for bytes whose rest has not come yet


@dataclass(frozen=True)
class Completion:
    """What was generated for one prompt."""

    prompt: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    profile: RequestProfile


@dataclass(frozen=True)
class Piece:
    """A piece of text as it becomes final; the last of a prompt carries the reason it ended."""

    prompt_index: int
    text: str
    finish_reason: FinishReason | None


class LanguageModel:
    """A loaded target, with or without a draft; serves any number of calls."""

    def __init__(self, loaded: LoadedPlacement, scenario: Scenario) -> None:
        self._loaded = loaded
        self._scenario = scenario

    def generate(self, prompts: Sequence[str], params: Params = None) -> list[Completion]:
        """Completions in prompt order. Raises PromptError for prompts that cannot be served."""
        engine, requests = self._start(prompts, params)
        engine.run()
        decode = self._loaded.target.tokenizer.decode
        completions = []
        for prompt, request in zip(prompts, requests, strict=True):
            assert request.finish_reason is not None
            profile = engine.profiles[request.request_id]
            completions.append(
                Completion(
                    prompt, request.text(decode), tuple(request.output_token_ids), request.finish_reason, profile
                )
            )
        return completions

    def stream(self, prompts: Sequence[str], params: Params = None) -> Iterator[Piece]:
        """Pieces of text as the steps emit them, of all prompts in turn; joined they are ``generate``'s texts."""
        engine, requests = self._start(prompts, params)
        num_shown = [0] * len(requests)
        running = list(requests)
        try:
            while running:
                engine.step()
                for request in running:
                    piece = self._piece(request, num_shown)
                    if piece is not None:
                        yield piece
                running = [request for request in running if request.status is not RequestStatus.FINISHED]
        finally:
            if running:  # the caller stopped listening, or a step failed: free what is still held
                self._loaded.reset()

    def _piece(self, request: Request, num_shown: list[int]) -> Piece | None:
        text = request.text(self._loaded.target.tokenizer.decode)
        finished = request.status is RequestStatus.FINISHED
        end = len(text) if finished else _final_length(text, request.params.stop_strings)
        start = num_shown[request.request_id]
        if end <= start and not finished:
            return None
        num_shown[request.request_id] = max(start, end)
        return Piece(request.request_id, text[start:end], request.finish_reason)

    def _start(self, prompts: Sequence[str], params: Params) -> tuple[Engine, list[Request]]:
        _require_texts(prompts)
        limit = self._loaded.placement.max_sequence_length
        each = [
            replace(item, max_sequence_length=min(item.max_sequence_length, limit))
            for item in _per_prompt(params, len(prompts))
        ]
        token_ids = encode_prompts(prompts, self._loaded.target.tokenizer, "the prompts of this call")
        for index, (ids, item) in enumerate(zip(token_ids, each, strict=True)):
            if item.max_new_tokens < 1:
                raise PromptError(
                    "no token is asked for", where=f"prompt {index}", received=item.max_new_tokens, allowed="at least 1"
                )
            if len(ids) >= item.max_sequence_length:
                raise PromptError(
                    "a prompt leaves no room for a token",
                    where=f"prompt {index}",
                    received=f"{len(ids)} tokens",
                    allowed=f"at most {item.max_sequence_length - 1}",
                )
        eos = self._loaded.target.decoder.spec.eos_token_ids
        requests = [
            Request(index, tuple(ids), item, eos) for index, (ids, item) in enumerate(zip(token_ids, each, strict=True))
        ]
        # One request that samples decides the verifier for all: every sampling one is greedy at temperature 0.
        sampling = next((item.sampling for item in each if not item.sampling.is_greedy), Sampling())
        engine = self._loaded.engine(self._scenario.model_copy(update={"sampling": sampling}))
        engine.add(requests)
        return engine, requests


def load(
    target: str | Path,
    draft: str | Path | None = None,
    *,
    expansion: Sequence[int] = PAPER_TREE,
    dtype: str = "float32",
    device: str = "cpu",
    max_requests_per_batch: int = 8,
    max_sequence_length: int = 512,
) -> LanguageModel:
    """Load two model folders (Hugging Face layout); without a draft decoding is incremental. Raises TreespecError."""
    widths = list(expansion) if draft is not None else []
    config = validate_run_config(
        {
            "placement": {
                "name": "api",
                "target": {"path": target},
                "drafts": [] if draft is None else [{"path": draft}],
                "dtype": dtype,
                "device": device,
                "max_sequence_length": max_sequence_length,
                "max_tree_nodes": MAX_TREE_NODES,
            },
            "scenarios": [
                {
                    "name": "api",
                    "mode": "incremental" if not widths else "sequence" if set(widths) == {1} else "tree",
                    "expansion": widths,
                    "prompts": "",
                    "max_requests_per_batch": max_requests_per_batch,
                    "max_new_tokens": 1,
                }
            ],
        },
        where="treespec.api.load",
    )
    return LanguageModel(load_placement(config.placement, config.scenarios), config.scenarios[0])


def generate(
    target: str | Path,
    prompts: Sequence[str],
    params: Params = None,
    draft: str | Path | None = None,
) -> list[Completion]:
    """Load and generate once."""
    return load(target, draft).generate(prompts, params)


def _require_texts(prompts: object) -> None:
    """A string is a sequence of strings as well, and would be served character by character."""
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
        received = type(prompts).__name__
        raise PromptError("prompts are not a list", received=received, allowed="a list of strings", fix="[prompt]")
    if wrong := [index for index, prompt in enumerate(prompts) if not isinstance(prompt, str)]:
        kind = type(prompts[wrong[0]]).__name__
        raise PromptError("prompts are not strings", received=f"indices {wrong}, the first: {kind}", allowed="strings")
    if wrong := not_unicode(prompts):
        raise PromptError("prompts are not valid Unicode", received=f"indices {wrong}")


def _per_prompt(params: Params, num_prompts: int) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * num_prompts
    if len(params) != num_prompts:
        raise ConfigError(
            "sampling parameters do not fit the prompts", received=len(params), allowed=f"one, or {num_prompts}"
        )
    return list(params)


def _final_length(text: str, stop_strings: Sequence[str]) -> int:
    """Characters that later tokens cannot take back: no half character, no beginning of a stop string."""
    end = len(text.rstrip(UNFINISHED_CHARACTER))
    for stop in stop_strings:
        for length in range(min(len(stop) - 1, end), 0, -1):
            if text[:end].endswith(stop[:length]):
                end -= length
                break
    return end
