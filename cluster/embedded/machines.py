"""What both kinds of embedded hosts have in common: names, keys, sshd, and what a test may do to them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

from cluster.embedded.processes import Process, command_line, end, marked, observed, run_program, wait_until
from cluster.embedded.requirements import Kind
from cluster.embedded.state import State
from cluster.errors import ClusterError
from cluster.hosts import Cluster

NODE_NAMES = ("node0", "node1")
RACK = "rack"
NODES = range(len(NODE_NAMES))
SLOTS = 4
KEY, PUBLIC_KEY = "id", "id.pub"
HOST_KEY = "host_key"
LOG = "sshd.log"
SSHD_WITHIN_S = 20.0
BANNER_TIMEOUT_S = 2.0
EXECUTE_TIMEOUT_S = 60.0


class Machines(ABC):
    """Two hosts on this machine; ``folder`` holds their keys and logs, ``state`` what runs."""

    kind: ClassVar[Kind]

    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder
        self.state = state

    @abstractmethod
    def start(self) -> None:
        """From nothing to two hosts whose sshd answers."""

    @abstractmethod
    def start_node(self, node: int) -> None:
        """Switch one host on, after a crash too: its disk and its host key are what they were."""

    @abstractmethod
    def description(self) -> Cluster:
        """What cluster.yaml says of them."""

    @abstractmethod
    def address(self, node: int) -> IPv4Address:
        """Where its sshd listens."""

    @abstractmethod
    def execute(self, node: int, words: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on the host without SSH, as its login in its home."""

    @abstractmethod
    def pids(self, node: int) -> list[int]:
        """Its processes, as this machine numbers them; none of a host that is off."""

    @abstractmethod
    def host_key_path(self, node: int) -> Path:
        """The host key that its sshd reads, as this machine sees it."""

    @abstractmethod
    def sshd(self, node: int) -> Process:
        """Its listening sshd. Raises ClusterError if it is off."""

    def kill_node(self, node: int) -> None:
        """A crash: all its processes end at once."""
        while pids := self.pids(node):  # what one of them started meanwhile too
            end([process for pid in pids if (process := observed(pid))], where=NODE_NAMES[node])

    def end(self) -> None:
        """Nothing is left but files in the folder."""
        for node in NODES:
            self.kill_node(node)
        end(self.state.living().values(), where=str(self.folder))
        # Started, but not recorded, by an `up` that was killed in between.
        for name in (RACK, *NODE_NAMES):
            unrecorded = [process for pid in marked(self.folder / name) if (process := observed(pid))]
            end(unrecorded, where=str(self.folder))

    def is_well(self) -> bool:
        """All that was started still runs, and both sshd answer."""
        running = self.state.living().keys() == self.state.processes.keys()
        return self.state.complete and running and all(self.answers(node) for node in NODES)

    def answers(self, node: int) -> bool:
        """Its sshd says who it is."""
        with contextlib.suppress(OSError):
            place = (str(self.address(node)), self.state.port)
            with socket.create_connection(place, BANNER_TIMEOUT_S) as sock:
                return sock.recv(4) == b"SSH-"
        return False

    def processes(self, node: int, text: str) -> list[int]:
        """Pids, as this machine numbers them, of the host's processes whose command line holds ``text``."""
        return [pid for pid in self.pids(node) if text in command_line(pid)]

    def renew_host_key(self, node: int) -> None:
        """Its sshd starts again with another host key; what is pinned stays."""
        new = self.folder / f"{HOST_KEY}.new"
        try:
            make_key(new, NODE_NAMES[node])
            self._show_host_key(node, new)
        finally:
            for path in (new, new.with_suffix(".new.pub")):
                path.unlink(missing_ok=True)

    def restore_host_key(self, node: int) -> None:
        """Its sshd starts again with the host key that is pinned."""
        self._show_host_key(node, self.folder / NODE_NAMES[node] / HOST_KEY)

    def _show_host_key(self, node: int, key: Path) -> None:
        shutil.copyfile(key, self.host_key_path(node))
        os.kill(self.sshd(node).pid, signal.SIGHUP)
        shown = key.with_name(f"{key.name}.pub").read_text(encoding="ascii").split()[1]
        wait_until(
            lambda: shown in self._shown_keys(node), "sshd does not show its new host key", where=NODE_NAMES[node]
        )

    def _shown_keys(self, node: int) -> str:
        with contextlib.suppress(ClusterError):  # it listens to nobody for a moment
            words = ["ssh-keyscan", "-T", "2", "-t", "ed25519", "-p", str(self.state.port), str(self.address(node))]
            return run_program(words, where=NODE_NAMES[node])
        return ""

    def _record(self, name: str, process: Process) -> None:
        self.state.processes[name] = process
        self.state.save(self.folder)

    def _make_keys(self) -> None:
        """The login's key and one of each host, made once, and known_hosts from them."""
        make_key(self.folder / KEY, "treespec-embedded")
        pinned = ""
        for node, name in enumerate(NODE_NAMES):
            (self.folder / name).mkdir(exist_ok=True)
            make_key(self.folder / name / HOST_KEY, name)
            public = (self.folder / name / f"{HOST_KEY}.pub").read_text(encoding="ascii").split()
            place = str(self.address(node))
            if self.state.port != 22:
                place = f"[{place}]:{self.state.port}"
            pinned += f"{place} {public[0]} {public[1]}\n"
        (self.folder / "known_hosts").write_text(pinned, encoding="ascii")

    def _await_sshd(self, node: int) -> None:
        name = NODE_NAMES[node]
        log = self.folder / name / LOG
        process = self.state.processes[name]
        wait_until(
            lambda: not process.is_alive or self.answers(node),
            f"sshd does not answer; its log: {log}",
            where=name,
            within_s=SSHD_WITHIN_S,
        )
        if not process.is_alive:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ClusterError("did not start", where=name, received=said[-1] if said else None)


def login() -> pwd.struct_passwd:
    """The user who runs this, who is also the login on the hosts."""
    return pwd.getpwuid(os.getuid())


def make_key(path: Path, comment: str) -> None:
    """A key pair without passphrase, in place of one that may be there."""
    path.unlink(missing_ok=True)
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], where=str(path))
