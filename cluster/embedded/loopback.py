"""Two sshd of the ordinary user on 127.0.0.2 and 127.0.0.3: no root, and no more apart than home and work folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from cluster.embedded.machines import (
    EXECUTE_TIMEOUT_S,
    HOST_KEY,
    KEY,
    LOG,
    NODE_NAMES,
    NODES,
    PUBLIC_KEY,
    SLOTS,
    Machines,
    login,
)
from cluster.embedded.namespaces import interpreter
from cluster.embedded.processes import MARK, Process, all_pids, command_line, descendants, marked, start
from cluster.errors import ClusterError
from cluster.hosts import Cluster, Host

PRIVILEGE_SEPARATION = Path("/run/sshd")


class LoopbackMachines(Machines):
    """What a host runs is told by a variable in the environment that its sshd gives to every command."""

    kind = "loopback"

    def start(self) -> None:
        self.state.port = _free_port()
        self.state.save(self.folder)
        self._make_keys()
        if os.geteuid() == 0:  # a root's sshd insists on this folder, which the system's own service makes as well
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: int) -> None:
        name = NODE_NAMES[node]
        for folder in (self._home(node), self._work_dir(node)):
            folder.mkdir(exist_ok=True)
        ssh_folder = self._home(node) / ".ssh"
        if not ssh_folder.exists():
            ssh_folder.mkdir(mode=0o700)
            shutil.copyfile(self.folder / PUBLIC_KEY, ssh_folder / "authorized_keys")
        shutil.copyfile(self.folder / name / HOST_KEY, self.host_key_path(node))
        self.host_key_path(node).chmod(0o600)
        config = self._config(node)
        config.write_text(self._settings(node), encoding="ascii")
        start(
            ["sshd", "-D", "-e", "-f", str(config)],
            mark=self.folder / name,
            log=self.folder / name / LOG,
            record=lambda process: self._record(name, process),
        )
        self._await_sshd(node)

    def description(self) -> Cluster:
        return Cluster(
            hosts=tuple(
                Host(
                    host=str(self.address(node)),
                    address=self.address(node),
                    slots=SLOTS,
                    port=self.state.port,
                    work_dir=self._work_dir(node),
                )
                for node in NODES
            ),
            user=login().pw_name,
            key=self.folder / KEY,
            known_hosts=self.folder / "known_hosts",
            interface="lo",
            work_dir=self._work_dir(0),
            device="cpu",
            python=str(interpreter()),
            packages=("rsync",),
            wheels="copied",
            rendezvous_port=_free_port(),
        )

    def address(self, node: int) -> IPv4Address:
        return IPv4Address("127.0.0.2") + node

    def execute(self, node: int, words: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["timeout", "-k", "5", f"{EXECUTE_TIMEOUT_S:g}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=self._home(node),
            env={**os.environ, **self._environment(node)},
        )

    def pids(self, node: int) -> list[int]:
        found = set(marked(self.folder / NODE_NAMES[node]))
        # sshd's own processes write their title, which ends with their words, over their environment.
        for pid in all_pids():
            line = command_line(pid)
            if line.startswith("sshd:") and str(self._config(node)) in line.split():
                found |= {pid, *descendants(pid)}
        return sorted(found)

    def host_key_path(self, node: int) -> Path:
        return self.folder / NODE_NAMES[node] / "shown_host_key"

    def sshd(self, node: int) -> Process:
        if sshd := self.state.living().get(NODE_NAMES[node]):
            return sshd
        raise ClusterError("is off", where=NODE_NAMES[node], fix="start_node")

    def _environment(self, node: int) -> dict[str, str]:
        return {"HOME": str(self._home(node)), MARK: str(self.folder / NODE_NAMES[node])}

    def _settings(self, node: int) -> str:
        given = " ".join(f"{name}={value}" for name, value in self._environment(node).items())
        return (
            f"ListenAddress {self.address(node)}:{self.state.port}\n"
            f"HostKey {self.host_key_path(node)}\n"
            f"AuthorizedKeysFile {self._home(node)}/.ssh/authorized_keys\n"
            f"SetEnv {given}\n"
            "StrictModes no\n"  # the folder may lie below one that others can write to
            "PermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "UsePAM no\n"
            "PidFile none\n"
            "MaxStartups 100\n"
            "Subsystem sftp internal-sftp\n"
        )

    def _config(self, node: int) -> Path:
        return self.folder / NODE_NAMES[node] / "sshd_config"

    def _home(self, node: int) -> Path:
        return self.folder / NODE_NAMES[node] / "home"

    def _work_dir(self, node: int) -> Path:
        return self.folder / NODE_NAMES[node] / "treespec"


def _free_port() -> int:
    """A port that is free on both addresses now."""
    with socket.socket() as first:
        first.bind(("127.0.0.2", 0))
        port: int = first.getsockname()[1]
        with socket.socket() as second:
            second.bind(("127.0.0.3", port))
    return port
