"""Stands beside a run on its host: what dies, dies whole. Sent to the host and run there; standard library only.

    keeper.py run --run-id ID --lock FILE --silence-s S --cwd DIR [--set NAME=VALUE ...] -- PROGRAM ...
    keeper.py stop --run-id ID

``run`` ends the program and everything it started when the program ends, when its own input ends (whoever watches the
run is gone), when nothing came in for ``--silence-s`` (the link is cut), or when it is told to end. Processes are found
by a mark in their environment, wherever they have gone. Exit status: the program's, or one of those below.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

MARK = "TREESPEC_RUN"
PR_SET_PDEATHSIG = 1
BUSY, ABANDONED = 73, 74  # another run holds the host; nobody watches this one any more


def main() -> int:
    """Run or stop."""
    parser = argparse.ArgumentParser(description="Run a program that never outlives its watcher.")
    commands = parser.add_subparsers(required=True, dest="command")
    run = commands.add_parser("run")
    run.add_argument("--run-id", required=True)
    run.add_argument("--lock", type=Path, required=True)
    run.add_argument("--silence-s", type=float, required=True)
    run.add_argument("--cwd", type=Path, required=True)
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    run.add_argument("program", nargs=argparse.REMAINDER)
    stop = commands.add_parser("stop")
    stop.add_argument("--run-id", required=True)
    args = parser.parse_args()
    if args.command == "stop":
        print(end_marked(args.run_id))
        return 0
    program = args.program[1:] if args.program[:1] == ["--"] else args.program
    return keep(args.run_id, args.lock, args.silence_s, args.cwd, args.set, program)


def keep(run_id: str, lock: Path, silence_s: float, cwd: Path, settings: Sequence[str], program: Sequence[str]) -> int:
    """Run the program to its end, or end it; returns an exit status."""
    with open(lock, "a+", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            say(f"error: busy: {held.read().strip() or 'another run'} holds {lock}")
            return BUSY
        held.truncate(0)
        held.write(f"run {run_id}, pid {os.getpid()}")
        held.flush()
        # A hang-up or a request to end must still end the program.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _raise_exit)
        environment = os.environ | dict(setting.split("=", 1) for setting in settings) | {MARK: run_id}
        try:
            return _watched(program, cwd, environment, silence_s)
        except FileNotFoundError as error:
            say(f"error: {error.filename} is not there")
            return 127
        finally:
            end_marked(run_id)


def _watched(program: Sequence[str], cwd: Path, environment: dict[str, str], silence_s: float) -> int:
    child = subprocess.Popen(
        program,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_keeper,  # noqa: PLW1509
    )
    # A thread, because what is written may wait for a reader that is gone.
    pump = threading.Thread(target=_pump, args=(child,), daemon=True)
    pump.start()
    heard = time.monotonic()
    while child.poll() is None:
        if select.select([0], [], [], 0.2)[0]:
            if not os.read(0, 4096):
                say("error: whoever watched this run is gone")
                return ABANDONED
            heard = time.monotonic()
        if time.monotonic() - heard > silence_s:
            say(f"error: nothing was heard for {silence_s:g} s")
            return ABANDONED
    pump.join(2)  # descendants may hold the pipe open
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _pump(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    while data := child.stdout.read1(1 << 16):  # type: ignore[attr-defined]
        try:
            os.write(1, data)
        except OSError:
            return


def _end_with_keeper() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _raise_exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def end_marked(run_id: str) -> int:
    """Kill every process that carries the run's mark, until none is left; returns how many there were."""
    ended: set[int] = set()
    num_empty = 0  # a process that is just being replaced by another program shows no mark for a moment
    while num_empty < 2:
        alive = marked(run_id)
        num_empty = 0 if alive else num_empty + 1
        ended |= set(alive)
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    return len(ended)


def marked(run_id: str) -> list[int]:
    """Processes that carry the mark, this one and those that have ended left out."""
    mark = f"{MARK}={run_id}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            words = Path("/proc", entry, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in words:
            found.append(int(entry))
    return found


def say(text: str) -> None:
    """A line for whoever watches, if anybody does."""
    try:
        os.write(1, f"{text}\n".encode())
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
