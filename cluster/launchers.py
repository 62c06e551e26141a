"""How ranks are started on a host; one entry per launcher, all with the same hosts, ranks and rendezvous."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cluster.hosts import Cluster, Host

HOSTFILE = "hostfile"


@dataclass(frozen=True)
class HostRun:
    """A job's part on one of its hosts."""

    cluster: Cluster
    hosts: Sequence[Host]
    node: int  # this host's place among them
    ranks_per_host: int
    home: PurePosixPath  # the cluster's folder on this host
    folder: PurePosixPath  # this run's

    @property
    def host(self) -> Host:
        """This one."""
        return self.hosts[self.node]

    def environment(self) -> dict[str, str]:
        """What every rank needs: without the interface's name, gloo takes whatever the host's name resolves to."""
        interface = self.cluster.interface
        # Addresses without names are no reason to warn of every connection.
        quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
        return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1"} | quiet

    def engine(self, job: PurePosixPath) -> list[str]:
        """The engine's arguments, the same for every rank."""
        return ["treespec", "run", "--config", str(job), "--output-dir", str(self.folder / "raw")]


def torchrun(run: HostRun, job: PurePosixPath) -> list[str] | None:
    """One agent per host, which starts the ranks there."""
    settings = {
        "nnodes": len(run.hosts),
        "nproc-per-node": run.ranks_per_host,
        "node-rank": run.node,
        "master-addr": run.hosts[0].address,
        "master-port": run.cluster.rendezvous_port,
        "local-addr": run.host.address,
    }
    words = [str(run.home / "venv/bin/python"), "-m", "torch.distributed.run"]
    return [*words, *(f"--{name}={value}" for name, value in settings.items()), "-m", *run.engine(job)]


def mpirun(run: HostRun, job: PurePosixPath) -> list[str] | None:
    """One process on the first host, which reaches the others by the keys between hosts."""
    if run.node > 0:
        return None
    num_ranks = len(run.hosts) * run.ranks_per_host
    words = ["mpirun", "--allow-run-as-root", "-np", str(num_ranks), "--hostfile", str(run.folder / HOSTFILE)]
    words += ["--bind-to", "none", "--wdir", str(run.home / "project")]
    settings = {
        "plm_rsh_agent": f"ssh -F {run.home}/ssh/config",  # the keys that provisioning gave the hosts for each other
        "btl_tcp_if_include": run.cluster.interface,
        "oob_tcp_if_include": run.cluster.interface,
    }
    for name, value in settings.items():
        words += ["--mca", name, value]
    exported = {
        **run.environment(),
        "MASTER_ADDR": str(run.hosts[0].address),
        "MASTER_PORT": str(run.cluster.rendezvous_port),
        "LOCAL_WORLD_SIZE": str(run.ranks_per_host),
    }
    for name, value in exported.items():
        words += ["-x", f"{name}={value}"]
    return [*words, "-x", "TREESPEC_RUN", str(run.home / "venv/bin/python"), "-m", *run.engine(job)]


Launcher = Callable[[HostRun, PurePosixPath], list[str] | None]
LAUNCHERS: Mapping[str, Launcher] = {"torchrun": torchrun, "mpirun": mpirun}
