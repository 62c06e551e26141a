"""Worlds small enough to enumerate: the target's and the drafts' next-token distributions after every prefix.

Legend: P prefixes of up to ``depth`` tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from treespec.config.sampling import Sampling
from treespec.ops.sampling import distributions

PLAIN_KINDS = ("random", "zeros", "disjoint", "equal", "one_hot")
KINDS = (*PLAIN_KINDS, "mixed")  # mixed: another kind after every prefix
NUM_DRAFTERS = 2
AS_IT_IS = Sampling(temperature=1)


@dataclass(frozen=True, eq=False)
class ToyWorld:
    """Logits in float64, a row per prefix; the empty prefix is row 0."""

    kind: str
    vocab_size: int
    depth: int
    rule: Sampling
    target_PV: Tensor
    drafts_PV: tuple[Tensor, ...]  # by drafter

    def child(self, prefix: int, token_id: int) -> int:
        """The prefix that is one token longer."""
        return prefix * self.vocab_size + 1 + token_id

    def distribution(self, logits_PV: Tensor) -> np.ndarray:
        """``[P, V]``: what tokens are drawn from, after every transformation."""
        p_PV: np.ndarray = distributions(logits_PV, [self.rule] * len(logits_PV)).numpy()
        return p_PV

    @cached_property
    def target_distribution(self) -> np.ndarray:
        """``[P, V]``: what the target draws from."""
        return self.distribution(self.target_PV)

    @property
    def num_prefixes(self) -> int:
        """Of up to ``depth`` + 1 tokens: a drafted path of ``depth`` tokens, and the target's own."""
        return self.vocab_size * len(self.target_PV) + 1

    def continued(self, mass: np.ndarray) -> np.ndarray:
        """Distribution of the first ``depth`` + 1 tokens; what is shorter the target itself continues.

        ``mass[prefix]`` is the probability that exactly that prefix was emitted.
        """
        mass = mass.copy()
        for prefix, p_V in enumerate(self.target_distribution):
            first = self.child(prefix, 0)
            mass[first : first + self.vocab_size] += mass[prefix] * p_V
        return mass[len(self.target_distribution) :]

    def truth(self) -> np.ndarray:
        """Distribution of the target's own first ``depth`` + 1 tokens."""
        nothing_emitted = np.zeros(self.num_prefixes)
        nothing_emitted[0] = 1
        return self.continued(nothing_emitted)


def toy_world(kind: str, vocab_size: int, depth: int, seed: int = 0, rule: Sampling = AS_IT_IS) -> ToyWorld:
    """A random world of one of ``KINDS``; the same arguments give the same world."""
    rng = np.random.default_rng([KINDS.index(kind), vocab_size, depth, seed])
    num_rows = sum(vocab_size**length for length in range(depth + 1))
    rows = []
    for _ in range(num_rows):
        kind_here = PLAIN_KINDS[rng.integers(len(PLAIN_KINDS))] if kind == "mixed" else kind
        rows.append([_on(support, rng) for support in _supports(kind_here, vocab_size, rng)])
        if kind_here == "equal":
            rows[-1] = rows[-1][:1] * (1 + NUM_DRAFTERS)
    with np.errstate(divide="ignore"):
        target_PV, *drafts_PV = (torch.from_numpy(np.log(np.stack(table))) for table in zip(*rows, strict=True))
    return ToyWorld(kind, vocab_size, depth, rule, target_PV, tuple(drafts_PV))


def _supports(kind: str, vocab_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Which tokens have any probability after one prefix: the target's, then every draft's."""
    everything = np.ones(vocab_size, dtype=bool)
    if kind == "zeros":
        return [_some(vocab_size, rng) for _ in range(1 + NUM_DRAFTERS)]
    if kind == "disjoint":
        of_target = _some(vocab_size, rng, at_most=vocab_size - 1)
        return [of_target] + [~of_target] * NUM_DRAFTERS
    if kind == "one_hot":
        which = rng.integers(3)  # the drafts, the target or all of them
        target = everything if which == 0 else _some(vocab_size, rng, at_most=1)
        return [target] + [everything if which == 1 else _some(vocab_size, rng, at_most=1) for _ in range(NUM_DRAFTERS)]
    return [everything] * (1 + NUM_DRAFTERS)


def _some(vocab_size: int, rng: np.random.Generator, at_most: int | None = None) -> np.ndarray:
    """Bool ``[V]``: a random set of at least one token."""
    mask = np.zeros(vocab_size, dtype=bool)
    mask[rng.permutation(vocab_size)[: rng.integers(1, (at_most or vocab_size) + 1)]] = True
    return mask


def _on(support: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    weights: np.ndarray = rng.exponential(size=len(support)) * support
    weights /= weights.sum()
    return weights
