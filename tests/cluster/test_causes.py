"""Of several hosts that fail together, the one that explains the others is named."""

from __future__ import annotations

import pytest

from cluster.causes import Ending, Rank, foremost, lost, told_ending

TORCHRUN = """
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_05:00:00
  host      : node1
  rank      : 5 (local_rank: 1)
  exitcode  : -{signal} (pid: 8192)
  error_file: <N/A>
  traceback : Signal {signal} received by PID 8192
"""
GONE = "treespec: error: rank 2 on node0: the other ranks are gone or silent: Connection reset by peer"


@pytest.mark.parametrize(
    ("status", "lines", "rank", "reason"),
    [
        (0, ["whatever"], Rank.NONE, "done"),
        (137, [], Rank.KILLED, "the launcher was killed by signal 9"),
        (-1, [], Rank.KILLED, "the keeper was killed"),
        (1, TORCHRUN.format(signal=9).splitlines(), Rank.KILLED, "rank 5 was killed by signal 9"),
        (1, [GONE, *TORCHRUN.format(signal=11).splitlines()], Rank.KILLED, "rank 5 was killed by signal 11"),
        (1, [GONE, *TORCHRUN.format(signal=15).splitlines()], Rank.CONSEQUENCE, GONE.partition("error: ")[2]),
        (
            1,
            [GONE, "treespec: error: rank 1 on node0: out of memory"],
            Rank.OWN_ERROR,
            "rank 1 on node0: out of memory",
        ),
        (1, ["OSError: [Errno 28] No space left on device"], Rank.OWN_ERROR, "No space left on device"),
        (73, ["error: busy: run x holds it"], Rank.OWN_ERROR, "busy: run x holds it"),
        (74, ["error: whoever watched this run is gone"], Rank.CONSEQUENCE, "whoever watched this run is gone"),
        (3, ["first", "last", " "], Rank.UNKNOWN, "exit status 3: last"),
        (3, [], Rank.UNKNOWN, "exit status 3: it said nothing"),
    ],
)
def test_an_ending_is_read(status: int, lines: list[str], rank: Rank, reason: str) -> None:
    assert told_ending("node0", status, lines) == Ending("node0", status, rank, reason)


def test_a_lost_host_explains_ranks_that_complain_elsewhere() -> None:
    complains = told_ending("node0", 1, [GONE])
    assert foremost([complains, lost("node1")]).host == "node1"
    assert not complains.is_cause
    assert lost("node1").is_cause


def test_a_killed_rank_explains_more_than_an_exit_status() -> None:
    killed = told_ending("node1", 1, TORCHRUN.format(signal=9).splitlines())
    unknown = told_ending("node0", 1, ["something"])
    assert foremost([unknown, killed]) is killed
    assert not unknown.is_cause
