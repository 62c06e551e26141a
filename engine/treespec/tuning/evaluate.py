"""What an embedded pair can do: repetition of the target's greedy text, agreement of its drafts.

Everything is computed on the target's own greedy trajectory, which speculation follows exactly; so the tokens per
step of any fixed expansion follow from the draft's rank of each next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from treespec.tuning.phases import CONTINUATION_TOKENS, greedy_continuations

LOOP_NGRAM, DISTINCT_NGRAM, MAX_RANK = 8, 4, 5
EXPANSIONS = {
    "sequence 4": (1,) * 4,
    "sequence 8": (1,) * 8,
    "<1,1,3,1,1,1,1,1>": (1, 1, 3, 1, 1, 1, 1, 1),
    "<3,1,1,1,1,1,1,1>": (3, 1, 1, 1, 1, 1, 1, 1),
}


def distinct_share(token_ids: Sequence[int]) -> float:
    """Distinct 4-grams over all 4-grams."""
    grams = [tuple(token_ids[i : i + DISTINCT_NGRAM]) for i in range(len(token_ids) - DISTINCT_NGRAM + 1)]
    return len(set(grams)) / len(grams)


def tokens_before_loop(token_ids: Sequence[int]) -> int:
    """Tokens before the first 8-gram that was seen already; all of them if there is none."""
    seen: set[tuple[int, ...]] = set()
    for start in range(len(token_ids) - LOOP_NGRAM + 1):
        gram = tuple(token_ids[start : start + LOOP_NGRAM])
        if gram in seen:
            return start
        seen.add(gram)
    return len(token_ids)


@dataclass(frozen=True)
class Repetition:
    """How repetitive a set of continuations is."""

    distinct_mean: float
    distinct_min: float
    loop_share: float
    before_loop_mean: float

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Repetition:
        """Measure continuations of equal length."""
        distinct = [distinct_share(row) for row in rows]
        before = [tokens_before_loop(row) for row in rows]
        looped = [count < len(row) for count, row in zip(before, rows, strict=True)]
        return cls(float(np.mean(distinct)), min(distinct), float(np.mean(looped)), float(np.mean(before)))


@dataclass(frozen=True)
class Agreement:
    """How well a draft predicts the target's greedy text, and the tokens per target step that follow."""

    num_tokens: int
    top_k: list[float]  # share of tokens among the draft's k likeliest, k = 1..5
    tokens_per_step: dict[str, float]


def trajectories(target: nn.Module, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Greedy continuations of 128 tokens, EOS ignored; prompts of equal length are run together."""
    rows: dict[int, list[int]] = {}
    for length in {len(prompt) for prompt in prompts}:
        indices = [index for index, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([list(prompts[index]) for index in indices])
        continuations = greedy_continuations(target, ids, CONTINUATION_TOKENS)[:, length:].tolist()
        rows.update(zip(indices, continuations, strict=True))
    return [rows[index] for index in range(len(prompts))]


@torch.no_grad()
def draft_ranks(draft: nn.Module, prompt: Sequence[int], continuation: Sequence[int]) -> np.ndarray:
    """Rank (1 = likeliest) that the draft gives each continuation token, int64 ``[T]``."""
    ids = torch.tensor([[*prompt, *continuation]])
    logits = draft(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    chosen = logits.gather(-1, torch.tensor(continuation)[:, None])
    ranks: np.ndarray = ((logits > chosen).sum(-1) + 1).numpy()
    return ranks


def tokens_per_step(ranks: np.ndarray, expansion: Sequence[int]) -> tuple[int, int]:
    """(tokens, steps) of speculating with ``expansion`` along one trajectory."""
    position = steps = 0
    while position < len(ranks):
        accepted = 0
        for width in expansion:
            if position + accepted >= len(ranks) or ranks[position + accepted] > width:
                break
            accepted += 1
        position += accepted + 1
        steps += 1
    return len(ranks), steps


def agreement(all_ranks: Sequence[np.ndarray]) -> Agreement:
    """Pool trajectories."""
    pooled = np.concatenate(all_ranks)
    rates = {}
    for name, expansion in EXPANSIONS.items():
        counts = np.array([tokens_per_step(ranks, expansion) for ranks in all_ranks if len(ranks)])
        rates[name] = float(counts[:, 0].sum() / counts[:, 1].sum())
    top_k = [float((pooled <= k).mean()) for k in range(1, MAX_RANK + 1)]
    return Agreement(len(pooled), top_k, rates)
