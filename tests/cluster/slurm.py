"""A real Slurm in one folder: munged, slurmctld and two slurmd on this machine; needs root.

All of them, and whatever they start, live in one PID namespace that ends with the process that made it, however that
ends. In a mount namespace of theirs the configuration lies where Slurm looks for it: jobs find it as on any cluster.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scontrol", "sinfo")
APT_LINE = "apt-get install --no-install-recommends munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins"
NODES = ("n1", "n2")
STANDARD_PLACE = Path("/etc/slurm")
START_TIMEOUT_S = 30
PR_SET_PDEATHSIG = 1

CONFIGURATION = """\
ClusterName=treespec
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
MinJobAge=300
KillWait=3
SlurmctldTimeout=30
SlurmdTimeout=30
SlurmdParameters=config_overrides
DefMemPerCPU=100
{nodes}PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000\n"

# The first process of the PID namespace: it adopts what the daemons leave behind, and all die with it.
DAEMONS = """
mount --bind "$1" "$2" || exit 1
munged --force --foreground --key-file="$1/munge/key" --socket="$1/munge/socket" --pid-file="$1/munge/pid" \
    --log-file="$1/munge/log" --seed-file="$1/munge/seed" --num-threads=2 &
slurmctld -D -i &
shift 2
for node; do slurmd -D -N "$node" & done
wait
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that is up."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes Slurm's programs speak to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _search_path()}

    def run(
        self, *command: str, timeout: float = 30, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One of Slurm's programs to its end, stderr apart."""
        env = os.environ | self.environment | dict(environment or {})
        return subprocess.run(command, env=env, text=True, capture_output=True, timeout=timeout)

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """One of Slurm's programs, stderr apart."""
        env = os.environ | self.environment | dict(environment or {})
        return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def processes(self) -> dict[int, dict[str, str]]:
        """Process id -> environment of the daemons, of jobs, and of programs that were told of this cluster."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "environ").read_text(errors="replace").split("\0")
            except OSError:
                continue
            variables = dict(word.split("=", 1) for word in words if "=" in word)
            if variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                found[int(path.name)] = variables
        return found

    def tasks(self) -> dict[int, int]:
        """Process ids of a step's tasks by rank, as long as only one step is running."""
        found = {}
        for pid, variables in self.processes().items():
            if "SLURM_STEP_NUM_TASKS" in variables and variables.get("SLURM_TASK_PID") == _own_pid(pid):
                found[int(variables["SLURM_PROCID"])] = pid
        return found


def lacking() -> str | None:
    """Why no Slurm can be started here, or None."""
    if os.geteuid() != 0:
        return "needs root (PID and mount namespaces, slurmd)"
    missing = [name for name in (*PROGRAMS, "unshare") if shutil.which(name, path=_search_path()) is None]
    if missing or not STANDARD_PLACE.is_dir():
        return f"needs Slurm, missing: {', '.join(missing) or STANDARD_PLACE}; {APT_LINE}"
    probe = subprocess.run(["unshare", "--pid", "--mount-proc", "--fork", "true"], text=True, capture_output=True)
    return None if probe.returncode == 0 else f"no PID namespaces here: {probe.stderr.strip()}"


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster of two nodes with eight CPUs each, idle; it and all its jobs are gone on exit."""
    _configure(folder)
    slurm = Slurm(folder)
    command = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", DAEMONS, "daemons"]
    with ExitStack() as stack:
        log = stack.enter_context(open(folder / "daemons.log", "w", encoding="utf-8"))
        daemons = subprocess.Popen(
            [*command, str(folder), str(STANDARD_PLACE), *NODES],
            env=os.environ | slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_parent,  # noqa: PLW1509
            start_new_session=True,
        )
        stack.callback(_end, daemons)
        _wait_until_idle(slurm, daemons)
        yield slurm


def _configure(folder: Path) -> None:
    for name in ("munge", "state", *NODES):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge/key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    host = socket.gethostname().split(".")[0]
    controller_port, *ports = _free_ports(1 + len(NODES))
    nodes = "".join(NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports, strict=True))
    text = CONFIGURATION.format(
        folder=folder, host=host, controller_port=controller_port, nodes=nodes, names=",".join(NODES)
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [item.getsockname()[1] for item in sockets]


def _wait_until_idle(slurm: Slurm, daemons: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    told = ""
    while time.monotonic() < deadline and daemons.poll() is None:
        states = slurm.run("sinfo", "--noheader", "--Node", "--format=%T")
        told = states.stdout + states.stderr
        if states.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.1)
    logs = "".join(path.read_text(errors="replace")[-1500:] for path in sorted(slurm.folder.glob("*.log")))
    raise AssertionError(f"Slurm did not come up: {told}\n{logs}")


def _end(daemons: subprocess.Popen[bytes]) -> None:
    """Killing unshare kills the first process of the namespace, and the kernel then all others."""
    daemons.kill()
    daemons.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_pid(pid: int) -> str | None:
    """A process's id as it sees it itself, in the innermost PID namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))


def _search_path() -> str:
    """PATH with the folders that daemons are installed in."""
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
