"""From logits to the distribution that tokens are drawn from.

Legend: T rows of logits, R rows asked for, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

NUCLEUS_HEAD = 1024  # tokens sorted first when looking for the nucleus; it rarely is larger


class SamplingRule(Hashable, Protocol):
    """What decides the transformation of a row; rows with equal rules are transformed together."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int | None: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...


def distributions(logits_RV: Tensor, rules: Sequence[SamplingRule]) -> Tensor:
    """Probabilities ``[R, V]`` after temperature, top-k, top-p and min-p, in at least float32.

    A function of the row alone: what is drawn from the result was drawn from exactly these numbers. Tokens that tie
    with the last one kept are kept too.
    """
    logits_RV = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
    if len(set(rules)) == 1:
        return _transformed(logits_RV, rules[0])
    p_RV = torch.empty_like(logits_RV)
    for rule in set(rules):
        rows = [row for row, other in enumerate(rules) if other == rule]
        p_RV[rows] = _transformed(logits_RV[rows], rule)
    return p_RV


class TargetRows:
    """The target's distributions at the nodes of a batch of trees, computed for the rows that are asked for."""

    def __init__(self, logits_TV: Tensor, rules: Sequence[SamplingRule]) -> None:
        assert len(rules) == len(logits_TV), "one rule per row"
        self._logits_TV = logits_TV
        self._rules = rules

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._logits_TV.shape[-1]

    def likeliest(self) -> list[int]:
        """The token of largest logit, for every row."""
        tokens: list[int] = self._logits_TV.argmax(dim=-1).tolist()
        return tokens

    def probabilities(self, rows: Sequence[int]) -> Tensor:
        """``[R, V]``, a tensor of its own that may be changed."""
        return distributions(self._logits_TV[list(rows)], [self._rules[row] for row in rows])


class LikeliestRows(TargetRows):
    """Rows of which the target told only the likeliest token: enough at temperature 0, where it has all probability."""

    def __init__(self, tokens_T: Tensor, rules: Sequence[SamplingRule], vocab_size: int) -> None:
        assert len(rules) == len(tokens_T), "one rule per row"
        assert all(rule.temperature == 0 for rule in rules), "nothing is drawn from a row without its logits"
        self._tokens_T = tokens_T
        self._rules = rules
        self._vocab_size = vocab_size

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def likeliest(self) -> list[int]:
        tokens: list[int] = self._tokens_T.tolist()
        return tokens

    def probabilities(self, rows: Sequence[int]) -> Tensor:
        return F.one_hot(self._tokens_T[list(rows)], self._vocab_size).to(torch.float32)


def _transformed(logits_RV: Tensor, rule: SamplingRule) -> Tensor:
    if rule.temperature == 0:
        likeliest = logits_RV.argmax(dim=-1)
        return F.one_hot(likeliest, logits_RV.shape[-1]).to(logits_RV.dtype)
    scaled = logits_RV / rule.temperature
    if rule.top_k is not None and rule.top_k < scaled.shape[-1]:
        last_kept = scaled.topk(rule.top_k, dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < last_kept, -torch.inf)
    p_RV = scaled.softmax(dim=-1)
    if rule.top_p < 1:
        p_RV = _renormalised(p_RV, p_RV >= _nucleus_edge(p_RV, rule.top_p))
    if rule.min_p > 0:
        p_RV = _renormalised(p_RV, p_RV >= rule.min_p * p_RV.amax(dim=-1, keepdim=True))
    return p_RV


def _renormalised(p_RV: Tensor, kept_RV: Tensor) -> Tensor:
    p_RV = p_RV * kept_RV
    return p_RV / p_RV.sum(dim=-1, keepdim=True)


def _nucleus_edge(p_RV: Tensor, top_p: float) -> Tensor:
    """``[R, 1]``: probability of the last token of the smallest set of likeliest ones that reaches ``top_p``."""
    V = p_RV.shape[-1]
    head = p_RV.topk(min(NUCLEUS_HEAD, V), dim=-1).values
    if head.shape[-1] < V and bool((head.sum(dim=-1) < top_p).any()):
        head = p_RV.sort(dim=-1, descending=True).values
    before = head.cumsum(dim=-1) - head
    num_kept = (before < top_p).sum(dim=-1, keepdim=True).clamp(min=1)
    return head.gather(-1, num_kept - 1)
