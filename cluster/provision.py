"""Makes machines hosts of ours, step by step, on all of them at once; what is done already is left alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError, UnreachableError
from cluster.facts import models_here
from cluster.hosts import Cluster, load_cluster
from cluster.ssh import Connection, connected, on_every
from cluster.steps.environment import Engine, Environment
from cluster.steps.files import CopiedFiles, SharedModels
from cluster.steps.keys import Acquaintance, KeyPair
from cluster.steps.step import SHORT_S, Step
from cluster.steps.system import Folders, Packages
from cluster.wheels import cache_folder, fetched, pins, platform_tag, public_pins

TAG = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"


@dataclass(frozen=True)
class Cargo:
    """What the hosts shall hold."""

    wheel: Path
    models: Sequence[Path]
    files: Sequence[Path]  # prompts, drafters and verifiers of one's own
    cache: Path  # where wheels are fetched to on this machine


@dataclass(frozen=True)
class Outcome:
    """How a step ended on a host."""

    seconds: float | None = None  # None: it was done already
    error: ClusterError | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return "failed"
        return "done already" if self.seconds is None else f"done in {self.seconds:.1f} s"


def provision(cluster: Cluster, cargo: Cargo) -> bool:
    """Bring the hosts what they lack; whether anything was changed. Raises ClusterError: the first host's that failed.

    No step begins before the one ahead of it is done everywhere.
    """
    plan = _first_steps(cluster, cargo)
    with ExitStack() as stack:
        connections = [stack.enter_context(item) for item in connected(cluster, cluster.hosts)]
        basics: list[Step] = [Packages(), Folders(), KeyPair(), Acquaintance(connections)]
        outcomes = [outcome for step in basics for outcome in _on_all(step, connections)]
        if cluster.wheels == "copied":
            on_every(connections, _require_same_platform)
        outcomes += [outcome for step in plan for outcome in _on_all(step, connections)]
    return any(outcome.seconds is not None for outcome in outcomes)


def _first_steps(cluster: Cluster, cargo: Cargo) -> list[Step]:
    """The steps whose cargo lies here: made before any host is touched, so that what is missing here comes first."""
    models = [folder.as_posix() for folder in cargo.models]
    models_here(cargo.models)
    versions = pins(cargo.wheel)
    steps: list[Step] = []
    if cluster.wheels == "copied":
        _require_device_build(cluster, versions)
        steps.append(CopiedFiles("wheels", fetched(versions, cargo.cache), ["."], "wheels"))
    else:
        versions = public_pins(versions)
    steps += [Environment(versions), Engine(cargo.wheel)]
    steps.append(CopiedFiles("project", Path(), _relative(cargo.files), "project"))
    if cluster.shared_dir is not None:
        steps.append(SharedModels(cluster.shared_dir, models))
    else:
        steps.append(CopiedFiles("models", Path(), models, "project"))
    return steps


def _on_all(step: Step, connections: Sequence[Connection]) -> list[Outcome]:
    """The step on every host; prints a line for each. Raises the first error after all have ended."""
    outcomes = on_every(connections, lambda connection: _on_one(step, connection))
    for connection, outcome in zip(connections, outcomes, strict=True):
        print(f"{connection.name}  {step.name}: {outcome}", flush=True)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in errors[1:]:
        print(f"also {error}", flush=True)
    if errors:
        raise errors[0]
    return outcomes


def _on_one(step: Step, connection: Connection) -> Outcome:
    started = time.monotonic()
    try:
        if step.is_done(connection):
            return Outcome()
        step.apply(connection)
        if not step.is_done(connection):
            raise ClusterError(f"{step.name}: still not done after it was applied", where=connection.name)
    except ClusterError as error:
        return Outcome(error=error)
    except (OSError, EOFError) as error:  # the connection closed while something was being sent
        return Outcome(error=UnreachableError("connection lost", where=connection.name, received=str(error)))
    return Outcome(time.monotonic() - started)


def _relative(paths: Sequence[Path]) -> list[str]:
    """As the hosts hold them below their project folder. Raises ClusterError."""
    for path in paths:
        if path.is_absolute() or ".." in path.parts:
            raise ClusterError(
                "is not a path below the repository", where=str(path), fix="name it relative to the repository's root"
            )
        if not path.is_file():
            raise ClusterError("is not there", where=str(path), fix="name a file that is there")
    return [path.as_posix() for path in paths]


def _require_device_build(cluster: Cluster, versions: dict[str, str]) -> None:
    if cluster.device == "cuda" and versions["torch"].endswith("+cpu"):
        raise ClusterError(
            "the torch installed here is a build without CUDA, and wheels are copied as they are installed here",
            where="this machine",
            received=versions["torch"],
            fix="set wheels: index in cluster.yaml, or provision from an environment with the CUDA build",
        )


def _require_same_platform(connection: Connection) -> None:
    there = connection.run([connection.cluster.python, "-c", TAG], timeout_s=SHORT_S).strip()
    if there != platform_tag():
        raise ClusterError(
            "wheels fetched here do not fit",
            where=connection.name,
            received=f"Python {there}",
            allowed=f"Python {platform_tag()}",
            fix="name a fitting interpreter as python in cluster.yaml, or set wheels: index",
        )


def add_provision(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command."""
    parser = commands.add_parser("provision", help="bring the hosts what runs need and they lack")
    parser.add_argument("--cluster", type=Path, required=True, help="cluster.yaml")
    parser.add_argument("--wheel", type=Path, required=True, help="the engine's wheel")
    parser.add_argument("--models", type=Path, nargs="+", default=[], help="folders, relative to the repository's root")
    parser.add_argument("--prompts", type=Path, nargs="+", default=[], help="files, relative to the repository's root")
    parser.add_argument("--plugins", type=Path, nargs="*", default=[], help="likewise: Python files that jobs name")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where fetched wheels are kept here")
    parser.set_defaults(command=_provision)


def _provision(args: argparse.Namespace) -> int:
    cargo = Cargo(args.wheel, args.models, [*args.prompts, *args.plugins], args.cache)
    if not provision(load_cluster(args.cluster), cargo):
        print("nothing to do")
    return 0
