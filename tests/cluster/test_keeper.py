"""The keeper: what it runs never outlives the program, the watcher or the keeper itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cluster.keeper import ABANDONED, BUSY, MARK, marked

KEEPER = Path(__file__).parents[2] / "cluster" / "keeper.py"
# A program whose child has left its session and its parent's pipe: it must be found all the same.
SCATTERED = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("started", flush=True)
time.sleep(float(sys.argv[1]))
"""


class Kept:
    """A keeper of SCATTERED, and its run's processes."""

    def __init__(self, folder: Path, *, lasts_s: float = 60, silence_s: float = 30, lock: str = "lock") -> None:
        self.run_id = f"test-{uuid4().hex[:8]}"
        words = [sys.executable, str(KEEPER), "run", "--run-id", self.run_id, "--lock", str(folder / lock)]
        words += ["--silence-s", str(silence_s), "--cwd", str(folder), "--set", "GREETING=a b=c"]
        words += ["--", sys.executable, "-c", SCATTERED, str(lasts_s)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_until_started(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "started\n"
        assert self.has(2)

    def end(self) -> tuple[int, str]:
        """Exit status and what was said, once it has ended by itself."""
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        return self.process.wait(timeout=10), said

    def is_gone(self) -> bool:
        return self.has(0)

    def has(self, count: int) -> bool:
        """Whether the run comes to have so many processes."""
        for _ in range(40):
            if len(marked(self.run_id)) == count:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path


def test_the_program_ends_and_what_it_started_with_it(folder: Path) -> None:
    kept = Kept(folder, lasts_s=0.5)
    kept.wait_until_started()
    assert kept.end() == (0, "")
    assert kept.is_gone()


def test_the_watcher_goes(folder: Path) -> None:
    kept = Kept(folder)
    kept.wait_until_started()
    assert kept.process.stdin is not None
    kept.process.stdin.close()
    status, said = kept.end()
    assert (status, "is gone" in said) == (ABANDONED, True)
    assert kept.is_gone()


def test_the_watcher_falls_silent_and_a_heartbeat_keeps_the_run(folder: Path) -> None:
    kept = Kept(folder, silence_s=1)
    kept.wait_until_started()
    assert kept.process.stdin is not None
    for _ in range(4):
        time.sleep(0.5)
        kept.process.stdin.write(".")
        kept.process.stdin.flush()
    assert kept.process.poll() is None
    status, said = kept.end()
    assert (status, "nothing was heard for 1 s" in said) == (ABANDONED, True)
    assert kept.is_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_keeper_is_told_to_end(folder: Path, number: int) -> None:
    kept = Kept(folder)
    kept.wait_until_started()
    kept.process.send_signal(number)
    assert kept.end()[0] == 128 + number
    assert kept.is_gone()


def test_the_keeper_is_killed_and_stop_ends_the_rest(folder: Path) -> None:
    kept = Kept(folder)
    kept.wait_until_started()
    kept.process.kill()
    kept.process.wait()
    time.sleep(0.3)
    assert len(marked(kept.run_id)) == 1, "the program goes with its keeper, what left its session does not"
    done = subprocess.run(
        [sys.executable, str(KEEPER), "stop", "--run-id", kept.run_id], text=True, capture_output=True, check=True
    )
    assert done.stdout == "1\n"
    assert kept.is_gone()


def test_one_run_at_a_time(folder: Path) -> None:
    first = Kept(folder)
    first.wait_until_started()
    second = Kept(folder)
    status, said = second.end()
    assert (status, first.run_id in said) == (BUSY, True)
    other = Kept(folder, lasts_s=0.1, lock="another")
    assert other.end()[0] == 0
    first.process.terminate()
    assert first.end()[0] != 0
    assert Kept(folder, lasts_s=0.1).end()[0] == 0


def test_a_killed_program_is_told_by_its_signal(folder: Path) -> None:
    kept = Kept(folder)
    kept.wait_until_started()
    children = Path(f"/proc/{kept.process.pid}/task/{kept.process.pid}/children").read_text().split()
    subprocess.run(["kill", "-9", *children], check=True)
    assert kept.end()[0] == 128 + 9
    assert kept.is_gone()


def test_a_program_that_is_not_there(folder: Path) -> None:
    words = [sys.executable, str(KEEPER), "run", "--run-id", "x", "--lock", str(folder / "lock"), "--silence-s", "5"]
    done = subprocess.run(
        [*words, "--cwd", str(folder), "--", "/no/such/program"], stdin=subprocess.PIPE, text=True, capture_output=True
    )
    assert (done.returncode, done.stdout) == (127, "error: /no/such/program is not there\n")


def test_settings_reach_the_program(folder: Path) -> None:
    words = [sys.executable, str(KEEPER), "run", "--run-id", "seen", "--lock", str(folder / "lock"), "--silence-s", "5"]
    show = f"import os; print(os.environ['GREETING'], os.environ['{MARK}'], os.getcwd())"
    words += ["--cwd", str(folder), "--set", "GREETING=a b=c", "--", sys.executable, "-c", show]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as kept:
        assert kept.stdout is not None
        assert kept.stdout.read() == f"a b=c seen {folder}\n"
