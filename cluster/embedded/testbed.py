"""The embedded cluster as a whole: started once, found again by its folder, ended with nothing left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import yaml

from cluster.embedded.loopback import LoopbackMachines
from cluster.embedded.machines import KEY, LOG, NODE_NAMES, PUBLIC_KEY, Machines
from cluster.embedded.namespaces import NamespaceMachines
from cluster.embedded.requirements import Kind, obstacle
from cluster.embedded.state import STATE_FILE, State
from cluster.errors import ClusterError
from cluster.hosts import Cluster, load_cluster

CLUSTER_FILE = "cluster.yaml"
OWN_FILES = (CLUSTER_FILE, KEY, PUBLIC_KEY, "known_hosts", "hosts", "rack.log", STATE_FILE)  # the state last
DISK_GIB = 6.0
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_.+/-]+")
MACHINES: dict[Kind, type[Machines]] = {"namespaces": NamespaceMachines, "loopback": LoopbackMachines}


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class EmbeddedCluster:
    """Two hosts on this machine, up between ``up`` and ``down``, or inside ``with``.

    The folder belongs to it: cluster.yaml, the keys, the logs. ``disk_gib`` limits what each host may hold beyond
    this machine's own files; it is memory, and only what is written takes any.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: Literal["auto", Kind] = "auto",
        disk_gib: float = DISK_GIB,
        say: Callable[[str], None] = _to_stderr,
    ) -> None:
        self.folder = folder.resolve()
        self.wanted = kind
        self.disk_bytes = int(disk_gib * (1 << 30))
        self._say = say

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def cluster(self) -> Cluster:
        """What cluster.yaml says."""
        return load_cluster(self.folder / CLUSTER_FILE)

    @property
    def machines(self) -> Machines:
        """The running hosts. Raises ClusterError where none were started."""
        state = State.load(self.folder)
        if state is None:
            raise ClusterError("no embedded cluster is up", where=str(self.folder), fix=_up_command(self.folder))
        return MACHINES[state.kind](self.folder, state)

    def up(self) -> bool:
        """Start the hosts; False where they were up already. What is left of a dead cluster is ended first.

        Nothing is left of one that cannot be started, or whose start a signal's exception interrupts.
        """
        if not PLAIN_PATH.fullmatch(str(self.folder)):
            raise ClusterError(
                "cannot be an embedded cluster's folder", where=str(self.folder), allowed=PLAIN_PATH.pattern
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ClusterError("cannot be made", where=str(self.folder), received=error.strerror) from error
        with self._locked():
            if (state := State.load(self.folder)) is not None:
                machines = MACHINES[state.kind](self.folder, state)
                if machines.is_well():
                    self._leave_as_it_is(machines)
                    return False
                self._say(f"{self.folder}: ending what is left of a former cluster")
                self._end(machines)
            self._refuse_foreign_files()
            self._start_first_possible()
        return True

    def require_idle(self) -> None:
        """Raises ClusterError while a run goes on: its records are on the hosts until it ends."""
        state = State.load(self.folder) if self.folder.is_dir() else None
        machines = None if state is None else MACHINES[state.kind](self.folder, state)
        for node, name in enumerate(NODE_NAMES if machines is not None else ()):
            if machines is not None and machines.processes(node, "keeper.py run"):
                raise ClusterError(
                    "a run goes on here",
                    where=f"{self.folder}, {name}",
                    fix="wait for it or interrupt it; python -m cluster down --force loses its records",
                )

    def down(self) -> bool:
        """End the hosts and remove their files, all but sshd's logs; False where nothing was up."""
        if not self.folder.is_dir():
            return False
        with self._locked():
            state = State.load(self.folder)
            if state is not None:
                self._end(MACHINES[state.kind](self.folder, state))
        return state is not None

    def _leave_as_it_is(self, machines: Machines) -> None:
        if self.wanted not in ("auto", machines.kind):
            raise ClusterError(
                "a cluster of another kind is up",
                where=str(self.folder),
                received=machines.kind,
                allowed=self.wanted,
                fix=f"python -m cluster down --folder {self.folder}",
            )
        self._say(f"{self.folder}: already up ({machines.kind})")

    def _refuse_foreign_files(self) -> None:
        if foreign := [name for name in OWN_FILES if (self.folder / name).exists()]:
            raise ClusterError(
                f"holds a {foreign[0]} that is not of an embedded cluster", where=str(self.folder), fix="another folder"
            )

    def _start_first_possible(self) -> None:
        kinds: tuple[Kind, ...] = ("namespaces", "loopback") if self.wanted == "auto" else (self.wanted,)
        reasons: list[str] = []
        for kind in kinds:
            if hindrance := obstacle(kind):
                reasons.append(f"{kind}: {hindrance}")
                continue
            if reasons:
                self._say(f"{self.folder}: two sshd on loopback, for there are no {reasons[0]}")
            try:
                self._start(kind)
            except ClusterError as error:
                reasons.append(f"{kind}: {error}")
            else:
                return
        raise ClusterError("no embedded cluster can be started", where="this machine", received="; ".join(reasons))

    def _start(self, kind: Kind) -> None:
        machines = MACHINES[kind](self.folder, State.new(kind, self.disk_bytes))
        machines.state.save(self.folder)
        try:
            machines.start()
            described = machines.description().model_dump(mode="json", exclude_none=True)
            text = yaml.safe_dump(described, sort_keys=False)
            (self.folder / CLUSTER_FILE).write_text(text, encoding="utf-8")
            machines.state.complete = True
            machines.state.save(self.folder)
        except BaseException:
            self._end(machines)
            raise
        self._say(f"{self.folder}: up ({kind})")

    def _end(self, machines: Machines) -> None:
        machines.end()
        for name in NODE_NAMES:
            node = self.folder / name
            for path in node.iterdir() if node.is_dir() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOG:
                    path.unlink()
        for path in (*self.folder.glob(f"{STATE_FILE}.*"), *(self.folder / name for name in OWN_FILES)):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One ``up`` or ``down`` at a time in this folder."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    # What a test may do to the hosts.

    def execute(self, node: int, words: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on the host without SSH, as its login in its home; ended after a minute."""
        return self.machines.execute(node, words, stdin)

    def processes(self, node: int, text: str) -> list[int]:
        """Pids, as this machine numbers them, of the host's processes whose command line holds ``text``."""
        return self.machines.processes(node, text)

    def kill_node(self, node: int) -> None:
        """A crash: all its processes end at once."""
        self.machines.kill_node(node)

    def start_node(self, node: int) -> None:
        """Switch it on again: disk and host key are what they were before the crash."""
        self.machines.start_node(node)

    def cut_link(self, node: int) -> None:
        """Nothing reaches the host any more, and nobody is told."""
        self._with_own("links").cut_link(node)

    def mend_link(self, node: int) -> None:
        """Undo ``cut_link``."""
        self._with_own("links").mend_link(node)

    def fill_disk(self, node: int) -> None:
        """Not a byte more fits on the host's disk."""
        self._with_own("disks").fill_disk(node)

    def free_disk(self, node: int) -> None:
        """Undo ``fill_disk``."""
        self._with_own("disks").free_disk(node)

    def restart_sshd_with_new_host_key(self, node: int) -> None:
        """The host shows another key than the pinned one."""
        self.machines.renew_host_key(node)

    def restore_host_key(self, node: int) -> None:
        """The host shows the pinned key again."""
        self.machines.restore_host_key(node)

    def limit_rate(self, mbit_per_s: float | None) -> None:
        """Let each host send at most this much; None: as much as it can."""
        self._with_own("interfaces").limit_rate(mbit_per_s)

    def _with_own(self, what: str) -> NamespaceMachines:
        machines = self.machines
        if not isinstance(machines, NamespaceMachines):
            raise ClusterError(
                f"its hosts have no {what} of their own",
                where=str(self.folder),
                received=f"kind {machines.kind}",
                allowed="kind namespaces",
            )
        return machines


def _up_command(folder: Path) -> str:
    return f"python -m cluster up --folder {folder}"
