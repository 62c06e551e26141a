"""A job on several hosts: one launcher per host under a keeper, one message when it fails, nothing left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cluster.causes import Ending, foremost
from cluster.errors import ClusterError, UnreachableError
from cluster.hosts import Cluster
from cluster.jobs import COMMIT_SUFFIX, JobFile
from cluster.launchers import HOSTFILE, LAUNCHERS, HostRun
from cluster.records import fetch_records, push_records
from cluster.ssh import Connection, connected, on_every, rsync
from cluster.watch import Watched, watch

KEEPER = Path(__file__).with_name("keeper.py")
GRACE_S = 12.0  # a link that was cut shows up within this, and explains what the ranks complain of
STOP_S = 10.0
SHORT_S = 20.0  # for commands that only look


@dataclass(frozen=True)
class Run:
    """A job as it is started: which hosts, how many ranks each, and the folder of this run there."""

    cluster: Cluster
    job: JobFile
    output_dir: Path
    run_id: str

    def folder(self, connection: Connection) -> PurePosixPath:
        """Everything of this run on that host."""
        return self.cluster.work_dir_of(connection.host) / "runs" / self.run_id


def run_job(cluster: Cluster, job: JobFile, output_dir: Path) -> int:
    """Run a job over SSH; returns how many records are new. Raises ClusterError naming the host and the cause.

    Whatever happens, committed records come back as long as the driver's host answers, and every process is stopped.
    """
    placed = cluster.ranks_on(job.num_ranks)
    run = Run(cluster, job, output_dir, f"{job.placement}-{secrets.token_hex(4)}")
    with _locked(output_dir), ExitStack() as stack:
        connections = [
            stack.enter_context(connection) for connection in connected(cluster, [host for host, _ in placed])
        ]
        driver = connections[job.driver // placed[0][1]]
        on_every(connections, lambda connection: _recover(run, connection, is_driver=connection is driver))
        on_every(connections, lambda connection: _prepare(run, connection))
        push_records(driver, output_dir, job.scenarios, run.folder(driver) / "raw")
        on_every(connections, lambda connection: _rehearse(run, connection))
        try:
            endings = _supervise(run, connections, placed[0][1])
        finally:
            num_new, uncollected = _collect(run, driver)
            _clean(run, connections, kept=driver if uncollected else None)
    _require_success(endings, len(connections))
    if uncollected is not None:
        raise ClusterError(
            f"the run ended, and its records are still there: {uncollected}",
            where=driver.name,
            fix="make room here; the same command brings them before it runs anything",
        )
    return num_new


def _recover(run: Run, connection: Connection, *, is_driver: bool) -> None:
    """Take in what an earlier run of this placement left that was cut off. Raises ClusterError while one goes on."""
    home = run.cluster.work_dir_of(connection.host)
    _require_idle(connection, home)
    found = connection.try_run(["ls", str(home / "runs")], timeout_s=SHORT_S).stdout.split()
    for name in found:
        if re.fullmatch(re.escape(run.job.placement) + "-[0-9a-f]{8}", name):
            if is_driver:
                source = home / "runs" / name / "raw"
                fetch_records(connection, source, run.output_dir, _absent(run))
            connection.run(["rm", "-rf", "--", str(home / "runs" / name)], timeout_s=SHORT_S)


def _absent(run: Run) -> list[str]:
    """Scenarios without any record here: what was left elsewhere may be older than what is here."""
    return [name for name in run.job.scenarios if not (run.output_dir / f"{name}{COMMIT_SUFFIX}").exists()]


def _require_idle(connection: Connection, home: PurePosixPath) -> None:
    """Raises ClusterError where a keeper holds the host."""
    if connection.try_run(["flock", "-n", str(home / ".lock"), "true"], timeout_s=SHORT_S).status == 1:
        holder = connection.try_run(["cat", str(home / ".lock")], timeout_s=SHORT_S).stdout.strip()
        raise ClusterError("another run goes on", where=connection.name, received=holder, fix="wait for it, or end it")


def _prepare(run: Run, connection: Connection) -> None:
    """Bring the keeper and the job. Raises ClusterError where the host was not provisioned."""
    home, folder = run.cluster.work_dir_of(connection.host), run.folder(connection)
    treespec = home / "venv" / "bin" / "treespec"
    for what in (treespec, home / "project"):
        if connection.try_run(["test", "-e", str(what)], timeout_s=SHORT_S).status != 0:
            raise ClusterError(
                "lacks the environment", where=connection.name, received=f"no {what}", fix="python -m cluster provision"
            )
    connection.run(["mkdir", "-p", str(folder / "raw")], timeout_s=SHORT_S)
    rsync(connection, [str(KEEPER), str(run.job.path)], f"{folder}/")
    hostfile = run.cluster.hostfile(run.job.num_ranks)
    connection.run(["tee", str(folder / HOSTFILE)], timeout_s=SHORT_S, stdin=hostfile)


def _rehearse(run: Run, connection: Connection) -> None:
    """Let the engine there look at the job: its own errors come before any rank starts."""
    home, folder = run.cluster.work_dir_of(connection.host), run.folder(connection)
    words = ["env", "-C", str(home / "project"), str(home / "venv/bin/treespec"), "run", "--dry-run"]
    words += ["--config", str(folder / run.job.path.name), "--output-dir", str(folder / "raw")]
    done = connection.try_run(words, timeout_s=run.cluster.failure_timeout_s)
    if done.status != 0:
        errors = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
        raise ClusterError(
            "the engine refuses the job", where=connection.name, received=(errors or [done.last_words])[0]
        )


def _supervise(run: Run, connections: Sequence[Connection], ranks_per_host: int) -> list[Ending]:
    """Start everywhere, watch, and stop what still runs; returns the endings up to the first failure's."""
    launcher = LAUNCHERS[run.cluster.launcher]
    watched: list[Watched] = []
    try:
        for node, connection in enumerate(connections):
            home, folder = run.cluster.work_dir_of(connection.host), run.folder(connection)
            place = HostRun(run.cluster, [item.host for item in connections], node, ranks_per_host, home, folder)
            program = launcher(place, folder / run.job.path.name)
            if program is not None:
                watched.append(Watched(connection, _kept(run, place, program), _say))
        return watch(watched, GRACE_S)
    finally:
        for item in watched:
            item.hang_up()
        for item in watched:
            item.join(STOP_S)


def _kept(run: Run, place: HostRun, program: Sequence[str]) -> list[str]:
    home, folder = place.home, place.folder
    words = [run.cluster.python, str(folder / KEEPER.name), "run", "--run-id", run.run_id]
    words += ["--lock", str(home / ".lock"), "--silence-s", f"{run.cluster.failure_timeout_s / 3:g}"]
    words += ["--cwd", str(home / "project")]
    for name, value in place.environment().items():
        words += ["--set", f"{name}={value}"]
    return [*words, "--", *program]


def _collect(run: Run, driver: Connection) -> tuple[int, ClusterError | None]:
    """Committed records of the driver's host; or why they could not be brought."""
    try:
        return fetch_records(driver, run.folder(driver) / "raw", run.output_dir, run.job.scenarios), None
    except ClusterError as error:
        _say(f"records could not be collected: {error}")
        return 0, error


def _clean(run: Run, connections: Sequence[Connection], kept: Connection | None) -> None:
    """Make sure that no process is left on any host that answers, and remove the run's folder, except on ``kept``."""
    for connection in connections:
        folder = run.folder(connection)
        try:
            stop = [run.cluster.python, str(folder / KEEPER.name), "stop", "--run-id", run.run_id]
            connection.run(stop, timeout_s=SHORT_S)
            if connection is not kept:
                connection.run(["rm", "-rf", "--", str(folder)], timeout_s=SHORT_S)
        except ClusterError as error:
            silence_s = run.cluster.failure_timeout_s / 3
            told = "" if isinstance(error, UnreachableError) else f" ({error})"
            _say(f"{connection.name} could not be cleaned{told}; its keeper ends the run after {silence_s:g} s")


def clean_hosts(cluster: Cluster) -> None:
    """Remove the work folder from every host. Raises ClusterError where a run is going on."""
    for connection in connected(cluster, cluster.hosts):
        with connection:
            home = cluster.work_dir_of(connection.host)
            _require_idle(connection, home)
            connection.run(["rm", "-rf", "--", str(home)], timeout_s=120)
            _say(f"{connection.name}: {home} removed")


def _require_success(endings: Sequence[Ending], num_hosts: int) -> None:
    cause = foremost(endings)
    if cause.status != 0:
        others = [f"{ending.host}: {ending.reason}" for ending in endings if ending is not cause and ending.status]
        raise ClusterError(
            f"the run ended here: {cause.reason}",
            where=cause.host,
            received=f"and then {' | '.join(others)}" if others else None,
            fix="the same command runs what is missing; python -m cluster check tells what a host lacks",
        )
    assert len(endings) in (1, num_hosts)


@contextmanager
def _locked(output_dir: Path) -> Iterator[None]:
    """One run at a time per results folder, the engine's own runs included; waits for the holder, naming it."""
    path = output_dir / ".lock"
    with _lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            _say(f"waiting: {file.read().strip() or 'another process'} holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        # The name is for whoever waits; where the disk is full, there is none.
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), f"cluster run, pid {os.getpid()}\n".encode())
        yield


def _lock_file(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise ClusterError("records cannot be written", where=str(path.parent), received=error.strerror) from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
