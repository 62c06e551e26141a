"""What ranks tell each other inside a forward pass.

Legend: B requests, N new tokens, M hidden.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Collectives(Protocol):
    """Messages between the ranks that compute one model; every rank calls them in the same order."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the ranks of a stage, on each of them."""

    def gather(self, x: Tensor) -> list[Tensor]:
        """What the stage's ranks handed in, by rank, of one shape; nothing where only the driver needs it."""

    def send(self, x_BNM: Tensor) -> None:
        """Hand hidden states to the next stage."""

    def receive(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        """Hidden states of the stage before, of the dtype and device of ``like``."""


class Alone:
    """One rank has nobody to talk to."""

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: Tensor) -> list[Tensor]:
        return [x]

    def send(self, x_BNM: Tensor) -> None:  # noqa: ARG002
        raise AssertionError("there is no next stage")

    def receive(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:  # noqa: ARG002
        raise AssertionError("there is no stage before")
