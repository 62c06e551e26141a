"""What crosses the borders of a rank, counted by kind: messages to other ranks, and weights that come by; torch-free.

A rank counts what it hands over: the payload of its own tensor, once per call, whatever the library's algorithm makes
of it on the wire. What it only receives it does not count, so that the sum over all ranks counts every payload once per
rank that contributed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

KINDS = ("command", "sum", "gather", "send", "draft", "weights")
"""What the driver tells, sums inside a stage, results of a stage's shares, hidden states for the next stage, what a
draft model on another rank found out, and weights streamed from host memory or disk, one message a map."""


@dataclass
class Traffic:
    """Messages and payload bytes handed over, by kind."""

    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def count(self, kind: str, num_bytes: int, num_messages: int = 1) -> None:
        """So many messages that together hold so many bytes."""
        assert kind in KINDS
        self.messages[kind] += num_messages
        self.bytes[kind] += num_bytes

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.messages + other.messages, self.bytes + other.bytes)

    def numbers(self) -> list[int]:
        """For the way to another rank."""
        return [counter[kind] for counter in (self.messages, self.bytes) for kind in KINDS]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> Traffic:
        """What ``numbers`` made."""
        traffic = cls()
        for kind, messages, num_bytes in zip(KINDS, numbers, numbers[len(KINDS) :], strict=False):
            traffic.count(kind, num_bytes, messages)
        return traffic

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Plain data for a record; kinds that did not occur are left out."""
        return {
            kind: {"messages": self.messages[kind], "bytes": self.bytes[kind]} for kind in KINDS if self.messages[kind]
        }
