"""Processes that outlive the command that started them, told apart from later ones that have their pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cluster.embedded.requirements import program
from cluster.errors import ClusterError

ENDED_WITHIN_S = 10.0
POLL_S = 0.01
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MARK = "TREESPEC_EMBEDDED"  # a variable in the environment of what is started, saying for which folder
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Process(BaseModel):
    """A process of this boot; the start time guards against another one that was given its pid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        """It runs, and it is still the same; one that only waits to be reaped is dead."""
        line = _stat(self.pid)
        return line is not None and line.start_ticks == self.start_ticks and line.state not in "ZX"


@dataclass(frozen=True)
class _Stat:
    state: str
    parent: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def observed(pid: int) -> Process | None:
    """The process that has this pid now."""
    line = _stat(pid)
    return None if line is None else Process(pid=pid, start_ticks=line.start_ticks)


def all_pids() -> list[int]:
    """Every process of this machine, those inside of containers too."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(pid: int) -> list[int]:
    """Children, their children and so on; those that lost their parent are not found."""
    children: dict[int, list[int]] = {}
    for other in all_pids():
        if line := _stat(other):
            children.setdefault(line.parent, []).append(other)
    found, waiting = [], [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found


def command_line(pid: int) -> str:
    """Its words, separated by blanks; empty if it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    return b" ".join(words).decode(errors="replace").strip()


def marked(folder: Path) -> list[int]:
    """Processes that were started for this folder, and their descendants that kept the environment."""
    mark = f"{MARK}={folder}".encode()
    return [pid for pid in all_pids() if mark in _environment(pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def start(words: Sequence[str], *, mark: Path, log: Path, record: Callable[[Process], None]) -> Process:
    """Start a program in a session of its own, with ``log`` as its output; it stays when this process ends.

    ``record`` is called with it before a signal can end this process, so that no started program is forgotten.
    """
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with _undisturbed():
        pid = os.posix_spawn(
            program(words[0]),
            [program(words[0]), *words[1:]],  # sshd starts itself again by this name
            {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", MARK: str(mark)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), writing, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=STOP_SIGNALS,
        )
        process = observed(pid)
        assert process is not None, "a child that nobody waited for has an entry"
        record(process)
    return process


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def end(processes: Iterable[Process], *, where: str) -> None:
    """Kill them and wait until they are gone. Raises ClusterError where that is refused or lasts too long."""
    left = [process for process in processes if process.is_alive]
    for process in left:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise ClusterError(
                f"process {process.pid} belongs to another user", where=where, fix="be the user who started it"
            ) from error
    pids = ", ".join(str(process.pid) for process in left)
    wait_until(lambda: not any(process.is_alive for process in left), f"processes {pids} do not end", where=where)
    for process in left:
        with contextlib.suppress(ChildProcessError):  # only our own children are ours to reap
            os.waitpid(process.pid, os.WNOHANG)


def wait_until(condition: Callable[[], bool], otherwise: str, *, where: str, within_s: float = ENDED_WITHIN_S) -> None:
    """Ask until it holds. Raises ClusterError saying ``otherwise`` after the time limit."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(otherwise, where=where, allowed=f"{within_s:g} s")
        time.sleep(POLL_S)


def run_program(words: Sequence[str], *, where: str, stdin: str = "", within_s: float = 30.0) -> str:
    """Run one of this machine's programs to its end and return its stdout. Raises ClusterError with its last words."""
    done = subprocess.run(
        [program(words[0]), *words[1:]], input=stdin, capture_output=True, text=True, timeout=within_s, check=False
    )
    if done.returncode != 0:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise ClusterError(f"{words[0]} failed", where=where, received=f"exit status {done.returncode}: {said}")
    return done.stdout
