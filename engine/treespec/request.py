"""A request and its one stopping rule; serialisable, torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from treespec.chance import Chance
from treespec.config import Sampling

GREEDY = Sampling()
Decode = Callable[[Sequence[int]], str]


class RequestStatus(Enum):
    """Where a request is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class FinishReason(Enum):
    """Why a request ended."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    MAX_NEW_TOKENS = "max_new_tokens"
    MAX_SEQUENCE_LENGTH = "max_sequence_length"


@dataclass(frozen=True)
class SamplingParams:
    """What ends a request and how its tokens are chosen."""

    max_new_tokens: int = 128
    max_sequence_length: int = 2048  # counts the prompt
    ignore_eos: bool = False
    stop_strings: tuple[str, ...] = ()
    sampling: Sampling = GREEDY


@dataclass
class Request:
    """One prompt and what was generated for it. After each step all but the last token are cached."""

    request_id: int
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    eos_token_ids: tuple[int, ...] = ()
    output_token_ids: list[int] = field(default_factory=list)
    status: RequestStatus = RequestStatus.WAITING
    finish_reason: FinishReason | None = None
    num_cached: int = 0  # committed tokens in the target's cache

    @property
    def num_tokens(self) -> int:
        """Prompt and output together."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @property
    def last_token_id(self) -> int:
        """The root of the next tree."""
        return self.output_token_ids[-1] if self.output_token_ids else self.prompt_token_ids[-1]

    @property
    def chance(self) -> Chance:
        """The request's own source of uniforms."""
        return Chance(self.params.sampling.seed, self.request_id)

    @property
    def num_remaining(self) -> int:
        """Tokens that may still be generated."""
        by_output = self.params.max_new_tokens - len(self.output_token_ids)
        return min(by_output, self.params.max_sequence_length - self.num_tokens)

    def tokens_from(self, start: int) -> list[int]:
        """Tokens of prompt and output from position ``start`` on."""
        num_prompt = len(self.prompt_token_ids)
        if start >= num_prompt:
            return self.output_token_ids[start - num_prompt :]
        return [*self.prompt_token_ids[start:], *self.output_token_ids]

    def append(self, token_ids: Sequence[int], decode: Decode) -> int:
        """Take emitted tokens up to the first that ends the request; returns how many were taken.

        The same rule, token by token, for every mode: EOS, stop strings, then the two length limits. A token that
        ends the request belongs to the output; the text is cut before a stop string.
        """
        assert self.status is RequestStatus.RUNNING and token_ids
        for count, token_id in enumerate(token_ids, start=1):
            self.output_token_ids.append(token_id)
            self.finish_reason = self._reason_to_stop(token_id, decode)
            if self.finish_reason is not None:
                self.status = RequestStatus.FINISHED
                return count
        return len(token_ids)

    def _reason_to_stop(self, token_id: int, decode: Decode) -> FinishReason | None:
        if token_id in self.eos_token_ids and not self.params.ignore_eos:
            return FinishReason.EOS
        if self.params.stop_strings:
            text = decode(self.output_token_ids)
            if any(stop in text for stop in self.params.stop_strings):
                return FinishReason.STOP_STRING
        if len(self.output_token_ids) >= self.params.max_new_tokens:
            return FinishReason.MAX_NEW_TOKENS
        if self.num_tokens >= self.params.max_sequence_length:
            return FinishReason.MAX_SEQUENCE_LENGTH
        return None

    def text(self, decode: Decode) -> str:
        """Generated text, cut before the first stop string."""
        text = decode(self.output_token_ids)
        ends = [text.find(stop) for stop in self.params.stop_strings if stop in text]
        return text[: min(ends)] if ends else text
