"""The kinds of tensors of a synthetic model; of each any part can be made alone.

Legend: R rows, C columns of the part asked for, M hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from treespec.model.synthetic.noise import NoisePool

Span = tuple[int, int]
"""First index and the one after the last."""


class Recipe(Protocol):
    """How a tensor is made."""

    def part(self, *spans: Span) -> Tensor:
        """The part between these indices, one span per dimension, in the stored dtype."""


@dataclass(frozen=True)
class SyntheticTensor:
    """A tensor that is made when a part of it is read; nothing is kept."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    recipe: Recipe

    def numel(self) -> int:
        """Elements of the whole."""
        return math.prod(self.shape)

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Tensor:
        """Bit for bit the same part of the whole, however it is cut."""
        slices = part if isinstance(part, tuple) else (part,)
        slices += (slice(None),) * (len(self.shape) - len(slices))
        spans = []
        for size, cut in zip(self.shape, slices, strict=True):
            start, stop, step = cut.indices(size)
            assert step == 1, "parts are contiguous"
            spans.append((start, max(start, stop)))
        return self.recipe.part(*spans)


@dataclass(frozen=True)
class Constant:
    """A vector of one value."""

    value: float
    dtype: torch.dtype

    def part(self, *spans: Span) -> Tensor:
        return torch.full([stop - start for start, stop in spans], self.value, dtype=self.dtype)


@dataclass(frozen=True)
class Noise:
    """A matrix of noise: ``inside`` is the gain of a block of it, ``outside`` of everything else.

    Mirrored, each odd column is the negative of the one before it.
    """

    pool: NoisePool
    name: str
    block_rows: Span
    block_columns: int  # from the first
    inside: float
    outside: float
    is_mirrored: bool = False

    def part(self, *spans: Span) -> Tensor:
        rows, columns = spans
        if self.inside == self.outside:
            return self._even(rows, columns, self.inside)
        above, rest = _split(rows, self.block_rows[0])
        middle, below = _split(rest, self.block_rows[1])
        left, right = _split(columns, self.block_columns)
        pieces = ((above, columns, self.outside), (middle, left, self.inside), (middle, right, self.outside))
        made = [self._even(*piece) for piece in (*pieces, (below, columns, self.outside))]
        return torch.cat([made[0], torch.cat(made[1:3], dim=1), made[3]])

    def _even(self, rows: Span, columns: Span, gain: float) -> Tensor:
        numbers = np.arange(*rows)
        if not self.is_mirrored:
            return self.pool.rows(self.name, numbers, slice(*columns), gain)
        first, last = columns[0] // 2, (columns[1] + 1) // 2
        half = self.pool.rows(self.name, numbers, slice(first, last), gain)
        whole = torch.stack([half, -half], dim=2).flatten(1)
        return whole[:, columns[0] - 2 * first : columns[1] - 2 * first]


def _split(span: Span, edge: int) -> tuple[Span, Span]:
    middle = min(max(edge, span[0]), span[1])
    return (span[0], middle), (middle, span[1])


@dataclass(frozen=True)
class Table:
    """The embedding: noise, but coordinate 0 is the same for every token, so that layers can have a threshold."""

    noise: Noise

    def part(self, *spans: Span) -> Tensor:
        table = self.noise.part(*spans)
        if spans[1][0] == 0:
            table[:, :1] = 1.0
        return table


@dataclass(frozen=True)
class CommonRows:
    """Rows that share one direction, and so all fire together, beside what each has of its own.

    ``threshold`` is what coordinate 0, the constant one, takes off.
    """

    pool: NoisePool
    name: str
    common: float
    own: float
    threshold: float

    def part(self, *spans: Span) -> Tensor:
        rows, columns = spans
        numbers = np.arange(*rows)
        shared = self.pool.rows(self.name + "/common", np.zeros_like(numbers), slice(*columns), self.common)
        if columns[0] == 0:
            shared[:, :1] = -self.threshold
        if not self.own:
            return shared
        own = self.pool.rows(self.name, numbers, slice(*columns), self.own)
        return (shared.float() + own.float()).to(shared.dtype)


@dataclass(frozen=True)
class Groups:
    """The vocabulary behind the first tokens in groups of as many tokens as are plausible after one.

    Member j of group i is followed by a member of group ``i + shift[j]``.
    """

    first: int
    num_groups: int
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, vocab_size: int, num_special: int, branching: int, seed: int) -> Groups:
        """As many groups as there is room for; what is left stays at the front and is never plausible."""
        num_groups = (vocab_size - num_special) // branching
        draw = np.random.Philox(key=seed).random_raw(branching)
        shifts = tuple(int(word) % max(1, num_groups - 1) + 1 for word in draw)
        return cls(vocab_size - num_groups * branching, num_groups, shifts)

    def predecessors(self, groups: np.ndarray, member: int) -> np.ndarray:
        """The token in place ``member`` of a group that each of these groups comes after, int64."""
        before = (groups - self.shifts[member]) % self.num_groups
        tokens: np.ndarray = self.first + before * len(self.shifts) + member
        return tokens


@dataclass(frozen=True)
class Head:
    """The map to logits: each row knows the tokens that its token comes after, and the place in its group."""

    table: Table
    groups: Groups
    members: Noise  # one row per place in a group
    rest: Noise  # rows of the first tokens, and columns behind the core
    core_width: int
    signal: float

    def part(self, *spans: Span) -> Tensor:
        (start, stop), columns = spans
        first, G = self.groups.first, len(self.groups.shifts)
        front, grouped = _split((start, stop), first)
        core, beyond = _split(columns, self.core_width)
        rows = self._grouped(grouped[0] - first, grouped[1] - first, core, G)
        right = self.rest.part(grouped, beyond)
        return torch.cat([self.rest.part(front, columns), torch.cat([rows, right], dim=1)])

    def _grouped(self, start: int, stop: int, core: Span, G: int) -> Tensor:
        width = core[1] - core[0]
        if stop <= start or width == 0:
            return self.members.part((0, max(0, stop - start)), (0, 0))
        groups = np.arange(start // G, (stop + G - 1) // G)
        sum_GM = torch.zeros(len(groups), width)
        for member in range(G):
            sum_GM += self._embeddings(self.groups.predecessors(groups, member), core).float()
        own = self.members.part((0, G), core)
        rows = (sum_GM[:, None] * self.signal + own.float()).to(own.dtype).flatten(0, 1)
        return rows[start - groups[0] * G : stop - groups[0] * G]

    def _embeddings(self, tokens: np.ndarray, core: Span) -> Tensor:
        noise = self.table.noise
        rows = noise.pool.rows(noise.name, tokens, slice(*core), noise.inside)
        if core[0] == 0:
            rows[:, :1] = 1.0
        return rows
