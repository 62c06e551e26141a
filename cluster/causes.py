"""Why a run ended on a host, read from its exit status and its last words; the cause is told, not its consequences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

BUSY, ABANDONED, PEERS_LOST = 73, 74, 75  # keeper.py; the engine, where a rank has lost the others
ROOT_CAUSE = "Root Cause (first observed failure)"


class Rank(IntEnum):
    """Which ending explains the others: a lost host makes ranks elsewhere fail, never the other way round."""

    LOST = 0
    KILLED = 1
    OWN_ERROR = 2
    UNKNOWN = 3
    CONSEQUENCE = 4
    NONE = 5


@dataclass(frozen=True)
class Ending:
    """How a run ended on one host."""

    host: str
    status: int
    rank: Rank
    reason: str

    @property
    def is_cause(self) -> bool:
        """Whether nothing that another host may still say could explain it better."""
        return self.rank <= Rank.OWN_ERROR


def lost(host: str) -> Ending:
    """The connection broke."""
    return Ending(host, -1, Rank.LOST, "the connection was lost: the host is down or the link is cut")


def told_ending(host: str, status: int, lines: Sequence[str]) -> Ending:
    """From an exit status (-1: killed by a signal) and the last lines."""
    if status == 0:
        return Ending(host, 0, Rank.NONE, "done")
    if status == -1 or status > 128:
        killed = f"the launcher was killed by signal {status - 128}" if status > 128 else "the keeper was killed"
        return Ending(host, status, Rank.KILLED, killed)
    text = "\n".join(lines)
    errors = [found[1] for line in lines if (found := re.match(r"(?:treespec: )?error: (.*)", line))]
    own = [error for error in errors if not is_consequence(error)]
    if killed_rank := _killed_rank(text):
        return Ending(host, status, Rank.KILLED, killed_rank)
    if own:
        return Ending(host, status, Rank.OWN_ERROR, own[0])
    if "No space left on device" in text:
        return Ending(host, status, Rank.OWN_ERROR, "No space left on device")
    if errors:
        return Ending(host, status, Rank.CONSEQUENCE, errors[0])
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return Ending(host, status, Rank.UNKNOWN, f"exit status {status}: {last}")


def is_consequence(error: str) -> bool:
    """Whether a rank complains of the others, or a keeper of its watcher."""
    return "the other ranks are gone or silent" in error or "whoever watched this run is gone" in error


def _killed_rank(text: str) -> str | None:
    """A rank that torchrun found killed; those that torchrun itself ends get SIGTERM."""
    _, _, root = text.rpartition(ROOT_CAUSE)
    found = re.search(r"rank\s*:\s*(\d+).*?exitcode\s*:\s*-(\d+)", root, re.DOTALL)
    if found is None or found[2] == "15":
        return None
    return f"rank {found[1]} was killed by signal {found[2]}"


def foremost(endings: Sequence[Ending]) -> Ending:
    """The ending that explains the others."""
    return min(endings, key=lambda ending: ending.rank)
