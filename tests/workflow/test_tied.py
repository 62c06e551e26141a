"""A tied program is the program itself, and does not outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.workflow.project import REPOSITORY

TIED = [sys.executable, "-m", "rules.tied"]


def test_it_becomes_the_program() -> None:
    done = subprocess.run([*TIED, str(os.getpid()), "sh", "-c", "echo $0 $1; exit 3", "a b", "c"], cwd=REPOSITORY)
    assert done.returncode == 3


def test_it_does_not_start_under_an_heir(tmp_path: Path) -> None:
    done = subprocess.run([*TIED, "999999999", "touch", str(tmp_path / "ran")], cwd=REPOSITORY, stderr=subprocess.PIPE)
    assert done.returncode != 0
    assert b"has ended" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_it_ends_with_its_parent() -> None:
    command = f"{sys.executable} -m rules.tied $$ sleep 600 & echo $!; wait"
    shell = subprocess.Popen(["bash", "-c", command], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    cmdline = Path(f"/proc/{pid}/cmdline")
    while not cmdline.read_bytes().startswith(b"sleep"):
        time.sleep(0.02)
    shell.kill()
    shell.wait()
    deadline = time.monotonic() + 5
    while cmdline.exists() and cmdline.read_bytes():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the program outlived its parent by 5 s")
        time.sleep(0.02)
