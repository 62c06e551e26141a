"""What is known of a cluster's hosts at one time: gathered over SSH, all hosts at once, everything bounded in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.errors import ClusterError, HostKeyError, UnreachableError
from cluster.hosts import Cluster, Host
from cluster.link import Links, measure_links
from cluster.listing import listing
from cluster.ssh import Connection, host_key

SHORT_S = 15.0
PROBE_S = 60.0
IMPORT_S = 120.0  # torch from a cold disk takes its time
PROGRAMS = ("rsync", "timeout", "flock", "ip", "ssh", "ssh-keygen", "apt-get", "nvidia-smi", "mpirun")


@dataclass(frozen=True)
class Failure:
    """The first thing that went wrong with a host; nothing is known beyond it."""

    check: str  # the name of the check that it answers
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Clock:
    """How far a host's clock is ahead of ours, and how wrong that may be, in seconds."""

    ahead_s: float
    within_s: float


@dataclass(frozen=True)
class HostFacts:
    """What one host says of itself; None and empty where that could not be learnt."""

    failure: Failure | None = None
    clock: Clock | None = None
    machine: Mapping[str, Any] | None = None  # probe.py
    environment: Mapping[str, Any] | None = None  # environment_probe.py
    project: Mapping[str, Sequence[int]] | None = None  # listing.py: models and prompts below the project's folder


@dataclass(frozen=True)
class Situation:
    """Everything that verdicts are based on."""

    cluster: Cluster
    models: Mapping[str, Mapping[str, Sequence[int]]]  # folder -> its files here
    hosts: Mapping[Host, HostFacts]
    links: Links
    min_mb_per_s: float = 0.0

    def size_of(self, model: str) -> int:
        """Bytes of a model's folder."""
        return sum(size for size, _ in self.models[model].values())


def models_here(folders: Sequence[Path]) -> dict[str, dict[str, list[int]]]:
    """The files of models on this machine. Raises ClusterError where a path is not one that hosts can hold as well."""
    found = {}
    for folder in folders:
        name = folder.as_posix()
        if folder.is_absolute() or ".." in folder.parts:
            raise ClusterError(
                "is not a path below the repository", where=name, fix="name it relative to the repository's root"
            )
        found[name] = listing(".", [name])
        if not found[name]:
            raise ClusterError("holds no files", where=name, fix="python download_models.py")
    return found


def gather(cluster: Cluster, models: Mapping[str, Mapping[str, Sequence[int]]], min_mb_per_s: float) -> Situation:
    """Look at every host. What goes wrong with one is among its facts; raises nothing for it."""
    with ExitStack() as stack:
        with ThreadPoolExecutor(len(cluster.hosts)) as pool:
            met = list(pool.map(lambda host: _meet(cluster, host), cluster.hosts))
        connections = [stack.enter_context(item) for item in met if isinstance(item, Connection)]
        with ThreadPoolExecutor(len(cluster.hosts)) as pool:
            looks = [
                pool.submit(_look_at, item, list(models)) if isinstance(item, Connection) else item for item in met
            ]
        facts = {
            host: HostFacts(failure=item) if isinstance(item, Failure) else item.result()
            for host, item in zip(cluster.hosts, looks, strict=True)
        }
        answering = [item for item in connections if facts[item.host].machine is not None]
        return Situation(cluster, models, facts, measure_links(answering), min_mb_per_s)


def _meet(cluster: Cluster, host: Host) -> Connection | Failure:
    """An open connection, or the first step towards one that failed."""
    try:
        host_key(host, cluster.connect_timeout_s)
    except ClusterError as error:
        return _failure("reachable", error, fix="is it up, is the port open?")
    try:
        return Connection(cluster, host)
    except HostKeyError as error:
        return _failure("host key", error)
    except ClusterError as error:
        is_about_key = cluster.key.is_file() and not cluster.known_hosts.is_file()
        return _failure("host key" if is_about_key else "login", error)


def _look_at(connection: Connection, models: Sequence[str]) -> HostFacts:
    """One look after the other; the first that fails ends it, and what was learnt before stays."""
    looks: tuple[tuple[str, str, Callable[[Connection], Any]], ...] = (
        ("answers", "clock", _clock),
        ("python", "machine", _machine),
        ("environment", "environment", _environment),
        ("project", "project", lambda connection: _project(connection, models)),
    )
    facts = HostFacts()
    for check, name, look in looks:
        try:
            facts = replace(facts, **{name: look(connection)})
        except ClusterError as error:
            return replace(facts, failure=_failure(check, error))
    return facts


def _clock(connection: Connection) -> Clock:
    before = time.time()
    told = float(connection.run(["date", "+%s.%N"], timeout_s=SHORT_S))
    after = time.time()
    return Clock(ahead_s=told - (before + after) / 2, within_s=(after - before) / 2)


def _machine(connection: Connection) -> dict[str, Any]:
    cluster, folder = connection.cluster, connection.cluster.work_dir_of(connection.host)
    request = {"folders": [str(folder)], "packages": cluster.packages, "programs": PROGRAMS}
    return read_json(connection, cluster.python, "probe.py", [json.dumps(request)], timeout_s=PROBE_S)


def _environment(connection: Connection) -> dict[str, Any] | None:
    """None where there is none."""
    python = connection.cluster.work_dir_of(connection.host) / "venv/bin/python"
    if connection.try_run(["test", "-x", str(python)], timeout_s=SHORT_S).status != 0:
        return None
    return read_json(connection, str(python), "environment_probe.py", ["import"], timeout_s=IMPORT_S)


def _project(connection: Connection, models: Sequence[str]) -> dict[str, list[int]] | None:
    """None where there is no such folder."""
    folder = connection.cluster.work_dir_of(connection.host) / "project"
    if connection.try_run(["test", "-d", str(folder)], timeout_s=SHORT_S).status != 0:
        return None
    return read_listing(connection, folder, [*models, "prompts"])


def read_listing(connection: Connection, root: PurePosixPath, paths: Sequence[str]) -> dict[str, list[int]]:
    """The files at and below some paths of a folder on the host, as listing.py tells them. Raises ClusterError."""
    return read_json(connection, connection.cluster.python, "listing.py", [str(root), *paths], timeout_s=PROBE_S)


def read_json(
    connection: Connection, python: str, script: str, arguments: Sequence[str], *, timeout_s: float
) -> dict[str, Any]:
    """What one of our scripts beside this file prints there. Raises ClusterError."""
    source = Path(__file__).with_name(script).read_text(encoding="utf-8")
    words = [python, "-I", "-", *arguments]
    try:
        told = connection.run(words, timeout_s=timeout_s, stdin=source, what=python)
    except (OSError, EOFError) as error:  # the connection closed while the script was being sent
        raise UnreachableError("connection lost", where=connection.name, received=f"sending {script}") from error
    try:
        found = json.loads(told)
    except ValueError as error:
        raise ClusterError(f"{script} said no JSON", where=connection.name, received=told[-200:]) from error
    assert isinstance(found, dict)
    return found


def _failure(check: str, error: ClusterError, fix: str = "") -> Failure:
    what, _, told_fix = str(error).removeprefix(f"{error.where}: ").partition("; fix: ")
    return Failure(check, what, told_fix or fix)
