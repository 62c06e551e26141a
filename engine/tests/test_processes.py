"""``treespec run`` as a process: locks, signals and kills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engine.tests.jobs import JobFolder
from treespec.config import load_run_config
from treespec.serving.exclusion import exclusive_run
from treespec.serving.job import Job

PATIENCE_S = 60


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Leaves nothing running, whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Poll; a condition that never comes true is a failure that names it."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def test_second_run_waits_naming_the_holder_and_then_skips_what_is_done(job: JobFolder) -> None:
    job.write()
    job.results.mkdir()
    with exclusive_run(job.results):
        process = job.start()
        assert process.stderr is not None
        first_words = process.stderr.readline()
        assert Job(load_run_config(job.config_file), job.results).run() == 0
        before = job.snapshot()
    with ended(process):
        _, err = process.communicate(timeout=PATIENCE_S)
    holder = f"treespec run, pid {os.getpid()} on {socket.gethostname()}"
    assert first_words == f"treespec: waiting: {holder} holds {job.results / '.lock'}\n"
    assert (process.returncode, err) == (0, "treespec: 3 of 3 scenarios are done\n")
    assert job.snapshot() == before


@pytest.mark.kill
def test_kill_in_the_middle_leaves_whole_records_and_the_next_run_goes_on(job: JobFolder) -> None:
    """Killed twice, the second time further on."""
    many = [
        scenario | {"name": f"{scenario['name']}-{length}", "max_new_tokens": length, "num_repeats": 4}
        for length in range(4, 12)
        for scenario in job.scenarios
    ]
    job.scenarios = many
    kept: dict[str, tuple[int, bytes]] = {}
    for num_records in (1, 9):
        with ended(job.start()) as process:
            wait_for("records", lambda n=num_records: len(list(job.results.glob("*.meta.json"))) >= n)
            process.send_signal(signal.SIGKILL)
            process.wait()
        committed = sorted(path.name.removesuffix(".meta.json") for path in job.results.glob("*.meta.json"))
        assert sorted(job.complete()) == committed
        assert num_records <= len(committed) < len(many), "the kill came too late to tell"
        now = job.snapshot()
        assert {name: now[name] for name in kept} == kept, "a finished record was served again"
        kept = {name: entry for name, entry in now.items() if name.partition(".")[0] in committed}
    assert job.run() == 0
    assert job.complete() == job.names
    now = job.snapshot()
    assert {name: now[name] for name in kept} == kept
    assert not (job.results / "superseded").exists()


@pytest.mark.kill
def test_interrupt_keeps_finished_records_and_says_so(job: JobFolder) -> None:
    job.scenarios = [
        scenario | {"name": f"{scenario['name']}-{length}", "max_new_tokens": length, "num_repeats": 50}
        for length in range(4, 12)
        for scenario in job.scenarios
    ]
    # A test run in the background of a shell ignores interrupts, and what it starts inherits that.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = job.start()
    signal.signal(signal.SIGINT, inherited)
    with ended(process):
        wait_for("a record", lambda: list(job.results.glob("*.meta.json")))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "treespec: interrupted; what was finished is kept, the same command goes on"
    assert "Traceback" not in err
    assert job.complete()


@pytest.mark.kill
def test_lock_of_a_killed_run_holds_up_nobody(job: JobFolder) -> None:
    job.change(num_repeats=100_000)
    with ended(job.start()) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "treespec: 0 of 3 scenarios are done\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    job.change(num_repeats=1)
    assert job.run() == 0
