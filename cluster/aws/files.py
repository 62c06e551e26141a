"""The files of a launch on this machine: cluster.yaml and the hosts' pinned keys, made and forgotten together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.aws.console_keys import ConsoleKeys
from cluster.aws.instances import Instance
from cluster.aws.settings import AwsSettings
from cluster.aws.state import LaunchState, state_file_of
from cluster.errors import ClusterError
from cluster.hosts import load_cluster

WRITTEN_BY = "# Written by python -m cluster launch, deleted by python -m cluster terminate; launch"


@dataclass(frozen=True)
class Plan:
    """What is launched, and the files it is written down in."""

    settings: AwsSettings
    settings_file: Path
    cluster_file: Path

    @property
    def state_file(self) -> Path:
        """Where the launch's state is."""
        return state_file_of(self.settings_file)

    @property
    def terminate(self) -> str:
        """The command that ends it."""
        return f"python -m cluster terminate --settings {self.settings_file}"


def known_hosts_of(cluster_file: Path) -> Path:
    """Beside cluster.yaml, for these hosts alone: AWS gives their addresses to others later."""
    return cluster_file.with_suffix(".known_hosts").resolve()


def check_files(plan: Plan) -> None:
    """Nothing may be found wrong only once the machines cost money. Raises ClusterError."""
    key = plan.settings.hosts.key.expanduser()
    if not key.is_file():
        raise ClusterError(
            "private key is not there", where=str(plan.settings_file), received=str(key), fix="name another one as key"
        )
    for path in (plan.cluster_file, known_hosts_of(plan.cluster_file)):
        if path.exists():
            raise ClusterError("is there already", where=str(path), fix="move it away, or give --cluster another name")
    if not os.access(plan.cluster_file.resolve().parent, os.W_OK):
        raise ClusterError("cannot be written", where=str(plan.cluster_file), fix="give --cluster another name")


def write_cluster(plan: Plan, launch: str, instances: Sequence[Instance], consoles: Mapping[str, ConsoleKeys]) -> None:
    """cluster.yaml, loaded once before it takes its name, and the keys as far as the consoles show them."""
    hosts, known_hosts = plan.settings.hosts, known_hosts_of(plan.cluster_file)
    cluster = {
        "hosts": [{"host": item.reached_by, "address": item.private, "slots": hosts.slots} for item in instances],
        "user": hosts.user,
        "key": str(hosts.key.expanduser().resolve()),
        "known_hosts": str(known_hosts),
        "interface": hosts.interface,
        "work_dir": str(hosts.work_dir),
        "device": hosts.device,
    }
    temporary = plan.cluster_file.with_name(f"{plan.cluster_file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(f"{WRITTEN_BY} {launch}\n{yaml.safe_dump(cluster, sort_keys=False)}", encoding="utf-8")
        load_cluster(temporary)
        lines = [f"{item.reached_by} {key}\n" for item in instances for key in consoles[item.instance].keys]
        known_hosts.write_text("".join(lines), encoding="utf-8")
        os.replace(temporary, plan.cluster_file)
    except OSError as error:
        raise ClusterError("cannot be written", where=str(plan.cluster_file), received=error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def forget(state_file: Path, state: LaunchState) -> None:
    """Delete the files of a launch of which nothing is left; a cluster.yaml that is not its own stays."""
    if _is_own(state):
        state.cluster_file.unlink(missing_ok=True)
        known_hosts_of(state.cluster_file).unlink(missing_ok=True)
    state_file.unlink(missing_ok=True)


def _is_own(state: LaunchState) -> bool:
    """Whether cluster.yaml is still what the launch wrote, or is not there: the launch found no file of that name."""
    try:
        with open(state.cluster_file, encoding="utf-8") as file:
            return file.readline().strip() == f"{WRITTEN_BY} {state.launch}"
    except FileNotFoundError:
        return True
