"""Two hosts in namespaces of their own: network, file system, processes, name, memory that processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath

from cluster.embedded import network
from cluster.embedded import node as inside
from cluster.embedded.machines import (
    EXECUTE_TIMEOUT_S,
    KEY,
    LOG,
    NODE_NAMES,
    NODES,
    RACK,
    SLOTS,
    Machines,
    login,
)
from cluster.embedded.network import NODE_INTERFACE, Network
from cluster.embedded.processes import (
    Process,
    all_pids,
    descendants,
    end,
    observed,
    run_program,
    start,
    wait_until,
)
from cluster.embedded.requirements import NAMESPACES, program
from cluster.errors import ClusterError
from cluster.hosts import Cluster, Host

CHECKOUT = Path(__file__).resolve().parents[2]
WORK_DIR = PurePosixPath("/srv/treespec")


class NamespaceMachines(Machines):
    """A "rack" process holds the switch and the disks, one first process per node holds all else of the node.

    The kernel takes a namespace with its last process, and with it mounts and links: to end the processes is to
    clean up. A node that crashes keeps its disk, as the disk is mounted in the rack's namespace.
    """

    kind = "namespaces"

    def start(self) -> None:
        self._start_rack()
        (self.folder / "hosts").write_text(
            "127.0.0.1 localhost\n::1 localhost\n"
            + "".join(f"{self.address(node)} {name}\n" for node, name in enumerate(NODE_NAMES)),
            encoding="ascii",
        )
        self._make_keys()
        for node in NODES:
            self._mount_disk(node)
            self._boot(node)
        for node in NODES:
            self._connect(node)

    def start_node(self, node: int) -> None:
        self._boot(node)
        self._connect(node)

    def description(self) -> Cluster:
        return Cluster(
            hosts=tuple(
                Host(host=str(self.address(node)), address=self.address(node), slots=SLOTS, port=self.state.port)
                for node in NODES
            ),
            user=login().pw_name,
            key=self.folder / KEY,
            known_hosts=self.folder / "known_hosts",
            interface=NODE_INTERFACE,
            work_dir=WORK_DIR,
            device="cpu",
            python=str(interpreter()),
            packages=("rsync",),
            wheels="copied",
        )

    def address(self, node: int) -> IPv4Address:
        return self._network().address(node)

    def execute(self, node: int, words: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        home, name = login().pw_dir, login().pw_name
        environment = [f"HOME={home}", f"USER={name}", f"LOGNAME={name}", f"PATH={inside.PATH}", "LANG=C.UTF-8"]
        limited = ["timeout", "-k", "5", f"{EXECUTE_TIMEOUT_S:g}", *words]
        entered = [program("nsenter"), "--target", str(self.sshd(node).pid), *NAMESPACES, "--"]
        return subprocess.run(
            [*entered, "env", "-i", "-C", home, *environment, *limited],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def pids(self, node: int) -> list[int]:
        holder = self.state.living().get(NODE_NAMES[node])
        if holder is None:
            return []
        first = descendants(holder.pid)[:1]
        inner = _namespace(first[0], "pid") if first else None
        return [pid for pid in all_pids() if _namespace(pid, "pid") == inner] if inner else []

    def host_key_path(self, node: int) -> Path:
        return Path(f"/proc/{self.sshd(node).pid}/root{inside.HOST_KEY}")

    def sshd(self, node: int) -> Process:
        holder = self.state.living().get(NODE_NAMES[node])
        first = [process for pid in descendants(holder.pid)[:1] if (process := observed(pid))] if holder else []
        if not first:
            raise ClusterError("is off", where=NODE_NAMES[node], fix="start_node")
        return first[0]

    def kill_node(self, node: int) -> None:
        if holder := self.state.living().get(NODE_NAMES[node]):
            # With the first process of a PID namespace the kernel kills the others, before the first one is gone.
            first = descendants(holder.pid)[:1]
            end([process for pid in first if (process := observed(pid))], where=NODE_NAMES[node])
            end([holder], where=NODE_NAMES[node])

    def end(self) -> None:
        if RACK in self.state.living() and self.state.third_byte is not None:
            network.remove(self._network())
        super().end()

    def cut_link(self, node: int) -> None:
        """Nothing reaches it any more, and nobody is told."""
        self._network().cut(node)

    def mend_link(self, node: int) -> None:
        """Undo ``cut_link``."""
        self._network().mend(node)

    def fill_disk(self, node: int) -> None:
        """Not a byte more fits on its disk."""
        # To lower the limit to what is used costs no memory, unlike to use what the limit allows.
        stat = os.statvfs(f"/proc/{self._rack_pid()}/root{self._disk(node)}")
        self._resize_disk(node, (stat.f_blocks - stat.f_bfree) * stat.f_frsize)

    def free_disk(self, node: int) -> None:
        """Undo ``fill_disk``."""
        self._resize_disk(node, self.state.disk_bytes)

    def limit_rate(self, mbit_per_s: float | None) -> None:
        """Let each host send at most this much; None: as much as it can."""
        for node in NODES:
            network.limit_rate(self.sshd(node).pid, mbit_per_s)

    def _start_rack(self) -> None:
        rack = start(
            ["unshare", "--net", "--mount", "sleep", "infinity"],
            mark=self.folder / RACK,
            log=self.folder / "rack.log",
            record=lambda process: self._record(RACK, process),
        )
        self._await_namespaces(rack, RACK)
        self.state.third_byte = network.create(rack.pid).third_byte
        self.state.save(self.folder)

    def _mount_disk(self, node: int) -> None:
        disk = self._disk(node)
        disk.mkdir(exist_ok=True)
        self._in_rack("mount", "-t", "tmpfs", "-o", f"size={self.state.disk_bytes},mode=755", "tmpfs", str(disk))

    def _resize_disk(self, node: int, num_bytes: int) -> None:
        self._in_rack("mount", "-o", f"remount,size={num_bytes}", str(self._disk(node)))

    def _in_rack(self, *words: str) -> None:
        run_program(["nsenter", f"--mount=/proc/{self._rack_pid()}/ns/mnt", "--", *words], where=str(self.folder))

    def _boot(self, node: int) -> None:
        name = NODE_NAMES[node]
        entered = ["nsenter", f"--mount=/proc/{self._rack_pid()}/ns/mnt", "--"]
        unshared = [program("unshare"), *NAMESPACES, "--fork", "--kill-child"]
        hidden = {CHECKOUT, Path(sys.prefix), self.folder} - {Path(sys.base_prefix)}
        words = [sys.executable, "-I", inside.__file__, "--name", name, "--disk", str(self._disk(node))]
        words += ["--login", login().pw_name, "--home", login().pw_dir, "--sshd", program("sshd")]
        words += [word for path in sorted(hidden) for word in ("--hide", str(path))]
        words += ["--show", str(Path(sys.base_prefix).resolve())]
        holder = start(
            [*entered, *unshared, *words],
            mark=self.folder / name,
            log=self.folder / name / LOG,
            record=lambda process: self._record(name, process),
        )
        self._await_namespaces(holder, name)

    def _connect(self, node: int) -> None:
        self._network().plug_in(node, self.state.processes[NODE_NAMES[node]].pid)
        self._await_sshd(node)

    def _await_namespaces(self, process: Process, name: str) -> None:
        wait_until(
            lambda: not process.is_alive or network.has_own_network(process.pid),
            "does not get a network namespace",
            where=name,
        )

    def _network(self) -> Network:
        assert self.state.third_byte is not None, "asked for after the network was made"
        return Network(self.state.third_byte, self._rack_pid())

    def _rack_pid(self) -> int:
        return self.state.processes[RACK].pid

    def _disk(self, node: int) -> Path:
        return self.folder / NODE_NAMES[node] / "disk"


def interpreter() -> Path:
    """The Python below our own environment: the nodes see it, and wheels fetched here fit it."""
    path = Path(sys.base_prefix).resolve() / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return path if path.exists() else Path("python3")


def _namespace(pid: int, kind: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
