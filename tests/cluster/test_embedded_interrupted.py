"""An embedded cluster whose start, or whose tests, a signal ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.embedded.requirements import Kind, obstacle
from cluster.embedded.testbed import EmbeddedCluster
from tests.cluster.remains import (
    CHECKOUT,
    assert_nothing_is_left,
    interface_index,
    namespaces_of,
    pids,
    state,
    wait_for,
)

pytestmark = [pytest.mark.ssh, pytest.mark.kill]


class TestInterruptedUp:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_leaves_nothing(self, kind: Kind, number: signal.Signals, after: int, tmp_path: Path) -> None:
        namespaces, status = interrupted(kind, number, after, tmp_path)
        assert status == 128 + number
        assert_nothing_is_left(tmp_path / "two", namespaces)

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_killed_hard_leaves_what_down_ends(self, kind: Kind, after: int, tmp_path: Path) -> None:
        namespaces, status = interrupted(kind, signal.SIGKILL, after, tmp_path)
        assert status == -signal.SIGKILL
        assert EmbeddedCluster(tmp_path / "two").down() is True
        assert_nothing_is_left(tmp_path / "two", namespaces)


def interrupted(kind: Kind, number: signal.Signals, after: int, tmp_path: Path) -> tuple[set[str], int]:
    """``up``, sent a signal once that many processes are recorded; their namespaces, and its exit status."""
    folder = tmp_path / "two"
    words = [sys.executable, "-m", "cluster", "up", "--folder", str(folder), "--kind", kind]
    for _ in range(10):
        with subprocess.Popen(words, cwd=CHECKOUT, stderr=subprocess.PIPE) as up:
            wait_for(lambda: (folder / "state.json").exists() and len(pids(folder)) >= after)
            up.send_signal(signal.SIGSTOP)
            caught = not state(folder)["complete"]
            namespaces = set().union(*(namespaces_of(pid) for pid in pids(folder)))
            up.send_signal(number if caught else signal.SIGKILL)
            up.send_signal(signal.SIGCONT)
            status = up.wait(30)
        if caught:
            return namespaces, status
        EmbeddedCluster(folder).down()
    pytest.fail("up was always faster")


def test_terminated_tests_leave_nothing(tmp_path: Path) -> None:
    if hindrance := obstacle("namespaces"):
        pytest.skip(f"no embedded cluster of kind namespaces: {hindrance}")
    lasting = f"{Path(__file__).parent}/test_embedded.py::TestFaults::test_cut_link_is_noticed_while_a_command_runs"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/base", lasting]
    with subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.DEVNULL) as tests:
        folder = tmp_path / "base" / "namespaces0"
        wait_for(lambda: (folder / "state.json").exists() and state(folder)["complete"])
        namespaces = set().union(*(namespaces_of(pid) for pid in pids(folder)))
        index = interface_index(folder)
        tests.send_signal(signal.SIGTERM)
        assert tests.wait(60) == 128 + signal.SIGTERM
    assert_nothing_is_left(folder, namespaces, index)
