"""The only doors through which chance enters drafting and verification.

Production draws behind them; the audit replays every outcome through the same callers, with its probability.

Legend: R requests that draw now, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from treespec.chance import Chance, Purpose


class Draws(Protocol):
    """Chance for a batch; ``items`` are indices into the batch of requests."""

    def accept(self, items: Sequence[int], probabilities_R: Tensor) -> list[bool]:
        """One coin per item; probabilities above 1 count as 1."""

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:
        """One token per item by weights that need not sum to 1; its depth below the root of the item's tree."""


class DraftDraws:
    """A drafter's chance in one step: tokens drawn in order, independent of all that verification draws."""

    def __init__(self, chances: Sequence[Chance], root_positions: Sequence[int], source: int = 0) -> None:
        self._streams = _Streams(chances, root_positions, Purpose.DRAFT, source)

    def accept(self, items: Sequence[int], probabilities_R: Tensor) -> list[bool]:  # noqa: ARG002
        raise AssertionError("a drafter accepts nothing")

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:  # noqa: ARG002
        return pick(weights_RV, [self._streams.next(item) for item in items])


class VerifyDraws:
    """Verification's chance in one step.

    Coins belong to the step (its root's position), because a rule may toss coins beyond the tokens it emits. The
    token that the target itself chooses belongs to its position, where exactly one is ever emitted: a rule that
    only chooses then gives the same text whatever was drafted.
    """

    def __init__(self, chances: Sequence[Chance], root_positions: Sequence[int]) -> None:
        self._chances = chances
        self._root_positions = root_positions
        self._coins = _Streams(chances, root_positions, Purpose.ACCEPT)

    def accept(self, items: Sequence[int], probabilities_R: Tensor) -> list[bool]:
        uniforms = [self._coins.next(item) for item in items]
        return [u < p for u, p in zip(uniforms, probabilities_R.tolist(), strict=True)]

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:
        uniforms = [
            self._chances[item].stream(Purpose.EMIT, self._root_positions[item] + depth).random()
            for item, depth in zip(items, depths, strict=True)
        ]
        return pick(weights_RV, uniforms)


class _Streams:
    """One stream per request, made when it is first needed."""

    def __init__(self, chances: Sequence[Chance], positions: Sequence[int], purpose: Purpose, source: int = 0) -> None:
        self._chances = chances
        self._positions = positions
        self._purpose = purpose
        self._source = source
        self._streams: dict[int, np.random.Generator] = {}

    def next(self, item: int) -> float:
        """The next uniform of a request."""
        if item not in self._streams:
            chance, position = self._chances[item], self._positions[item]
            self._streams[item] = chance.stream(self._purpose, position, self._source)
        return float(self._streams[item].random())


def pick(weights_RV: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Inverse of the cumulated weights, in float64; never a token of weight 0."""
    cumulated_RV = weights_RV.double().cumsum(dim=-1)
    totals_R1 = cumulated_RV[:, -1:].contiguous()
    u_R1 = torch.tensor(uniforms, dtype=torch.float64, device=weights_RV.device).unsqueeze(1)
    tokens_R1 = torch.searchsorted(cumulated_RV, u_R1 * totals_R1, right=True)
    # u * total may round up to the total; the last token with weight is then meant.
    last_R1 = torch.searchsorted(cumulated_RV, totals_R1)
    tokens: list[int] = torch.minimum(tokens_R1, last_R1).squeeze(1).tolist()
    return tokens
