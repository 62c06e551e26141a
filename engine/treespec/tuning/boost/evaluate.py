"""Verified tokens per step of several drafts' merged trees against one draft's tree, on held-out prompts.

Speculation with greedy verification follows the target's own greedy text, so tokens per step are exact without an
engine. A merged tree is the union of its drafts' trees by root path; each of them contains the paths it begins, so what
is accepted of the union is the most that is accepted of any of them.

Legend: R prompts, T tokens of a continuation, D drafts, B roots of a batch, L leaves below each root, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from treespec.tuning.boost.samples import Continuations
from treespec.tuning.evaluate import tokens_before_loop

BOOTSTRAP_DRAWS = 2000
GROWN_STRIDE = 4  # nodes of merged trees are counted at every fourth step
Expansion = tuple[int, ...]


@dataclass(frozen=True)
class TargetText:
    """The target's text behind every prompt, as ranks (1 = likeliest) that each draft gives its tokens."""

    ranks_RT: Mapping[str, np.ndarray]  # by the draft's name, int64
    lengths_R: np.ndarray  # tokens that count, int64

    def accepted(self, drafts: Sequence[str], expansion: Expansion) -> np.ndarray:
        """Tokens accepted by a step whose next token is t, for every t, int64 ``[R, T]``.

        Those of a step that reaches the end may count tokens behind it; no step begins there.
        """
        accepted_DRT = np.stack([_accepted_of_one(self.ranks_RT[draft], expansion) for draft in drafts])
        accepted_RT: np.ndarray = accepted_DRT.max(axis=0)
        return accepted_RT

    def pooled_ranks(self, draft: str) -> np.ndarray:
        """Ranks of all tokens that count, one behind the other."""
        ranks_RT = self.ranks_RT[draft]
        ranks: np.ndarray = ranks_RT[np.arange(ranks_RT.shape[1]) < self.lengths_R[:, None]]
        return ranks


def _accepted_of_one(ranks_RT: np.ndarray, expansion: Expansion) -> np.ndarray:
    num_tokens = ranks_RT.shape[1]
    alive_RT, accepted_RT = np.ones_like(ranks_RT, dtype=bool), np.zeros_like(ranks_RT)
    for depth, width in enumerate(expansion[:num_tokens]):
        alive_RT[:, : num_tokens - depth] &= ranks_RT[:, depth:] <= width
        accepted_RT += alive_RT
    return accepted_RT


@dataclass(frozen=True)
class Speculation:
    """Trees of one expansion, one of each draft, merged."""

    drafts: tuple[str, ...]
    expansion: Expansion

    @property
    def max_nodes(self) -> int:
        """Speculated nodes if the drafts agree on nothing."""
        return len(self.drafts) * num_nodes(self.expansion)

    def steps(self, text: TargetText) -> np.ndarray:
        """True at each step's first token, bool ``[R, T]``; a step emits what it accepts and one token more."""
        accepted_RT = text.accepted(self.drafts, self.expansion)
        starts_RT, position_R = np.zeros_like(accepted_RT, dtype=bool), np.zeros_like(text.lengths_R)
        while (rows := np.flatnonzero(position_R < text.lengths_R)).size:
            starts_RT[rows, position_R[rows]] = True
            position_R[rows] += accepted_RT[rows, position_R[rows]] + 1
        return starts_RT

    def counts(self, text: TargetText) -> np.ndarray:
        """Tokens and steps per prompt, int64 ``[R, 2]``."""
        return np.stack([text.lengths_R, self.steps(text).sum(axis=1)], axis=1)


def num_nodes(expansion: Sequence[int]) -> int:
    """Speculated nodes of an expansion, the root not counted."""
    return sum(itertools.accumulate(expansion, lambda product, width: product * width))


def expansions_within(nodes: int) -> list[Expansion]:
    """Every expansion of at most so many speculated nodes that no further level fits below, which could only help."""
    deeper = [(width, *rest) for width in range(1, nodes + 1) for rest in expansions_within((nodes - width) // width)]
    return deeper or [()]


def target_text(ranks_RT: Mapping[str, np.ndarray], continuations: Continuations, *, before_loop: bool) -> TargetText:
    """Every text up to its end, or only up to its first repeated 8-gram."""
    texts = [continuations.live_tokens(index) for index in range(len(continuations))]
    lengths = [tokens_before_loop(tokens) if before_loop else len(tokens) for tokens in texts]
    return TargetText(ranks_RT, np.array(lengths))


@dataclass(frozen=True)
class Estimate:
    """A measured number with its 95 % bootstrap interval over prompts."""

    value: float
    low: float
    high: float


def rate(counts_R2: np.ndarray) -> float:
    """Tokens per step, pooled over prompts."""
    tokens, steps = counts_R2.sum(axis=0)
    return float(tokens / steps)


def rate_difference(one_R2: np.ndarray, other_R2: np.ndarray) -> Estimate:
    """Tokens per step of ``one`` minus those of ``other``; prompts are resampled in pairs."""
    draws = np.random.default_rng(0).integers(0, len(one_R2), size=(BOOTSTRAP_DRAWS, len(one_R2)))
    one, other = one_R2[draws].sum(axis=1), other_R2[draws].sum(axis=1)
    low, high = np.quantile(one[:, 0] / one[:, 1] - other[:, 0] / other[:, 1], [0.025, 0.975])
    return Estimate(rate(one_R2) - rate(other_R2), float(low), float(high))


def best_single(text: TargetText, drafts: Sequence[str], expansions: Sequence[Expansion]) -> Speculation:
    """The draft and the expansion with the most tokens per step on these very prompts, which favours the single one."""
    candidates = [Speculation((draft,), expansion) for draft in drafts for expansion in expansions]
    return max(candidates, key=lambda candidate: rate(candidate.counts(text)))


@torch.no_grad()
def grown_paths(draft: nn.Module, contexts_BC: Tensor, expansion: Expansion) -> np.ndarray:
    """Tokens of every root-to-leaf path of the draft's tree behind each context, int64 ``[B, L, depth]``."""
    output = draft(input_ids=contexts_BC, use_cache=True)
    paths_BLD = torch.empty(len(contexts_BC), 1, 0, dtype=torch.long, device=contexts_BC.device)
    for depth, width in enumerate(expansion):
        likeliest_XK = output.logits[:, -1].topk(width).indices
        paths_BLD = paths_BLD.repeat_interleave(width, dim=1)
        paths_BLD = torch.cat([paths_BLD, likeliest_XK.reshape(len(contexts_BC), -1, 1)], dim=-1)
        if depth + 1 < len(expansion):
            cache = output.past_key_values
            cache.batch_repeat_interleave(width)
            output = draft(input_ids=likeliest_XK.reshape(-1, 1), past_key_values=cache, use_cache=True)
    return paths_BLD.cpu().numpy()


def merged_num_nodes(paths_DBLX: Sequence[np.ndarray]) -> list[int]:
    """Distinct root paths of several drafts' trees below each root; one array ``[B, L, depth]`` per draft."""
    counts = []
    for of_each_draft in zip(*paths_DBLX, strict=True):
        leaves = [tuple(path) for paths in of_each_draft for path in paths.tolist()]
        counts.append(len({path[:depth] for path in leaves for depth in range(1, len(path) + 1)}))
    return counts


def mean_merged_nodes(
    networks: Mapping[str, nn.Module], continuations: Continuations, text: TargetText, merged: Speculation
) -> float:
    """Nodes of the merged tree, on average over every fourth step; contexts of equal length are run together."""
    by_length: dict[int, list[list[int]]] = {}
    for index, starts_T in enumerate(merged.steps(text)):
        for start in np.flatnonzero(starts_T)[::GROWN_STRIDE].tolist():
            context = [*continuations.prompts[index], *continuations.tokens_RT[index, :start].tolist()]
            by_length.setdefault(len(context), []).append(context)
    counts: list[int] = []
    device = next(networks[merged.drafts[0]].parameters()).device
    for contexts in by_length.values():
        contexts_BC = torch.tensor(contexts, device=device)
        paths = [grown_paths(networks[draft], contexts_BC, merged.expansion) for draft in merged.drafts]
        counts += merged_num_nodes(paths)
    return float(np.mean(counts))
