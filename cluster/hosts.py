"""cluster.yaml: which machines, how they are reached, what they are used with. One file, validated as a whole."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cluster.errors import ClusterError
from cluster.settings_file import StrictModel, load_yaml

HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+/~-]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]


def _owned(path: PurePosixPath | None) -> PurePosixPath | None:
    if path is not None and (not path.is_absolute() or len(path.parts) < 3 or ".." in path.parts):
        raise ValueError("must be an absolute path of at least two parts, such as /home/ubuntu/treespec")
    return path


OwnFolder = Annotated[PurePosixPath, AfterValidator(_owned)]


class Host(StrictModel):
    """One machine."""

    host: HostName = Field(description="name or address that this machine reaches it by")
    address: IPv4Address | IPv6Address = Field(description="private address, on the interface that ranks talk over")
    slots: int = Field(ge=1, description="ranks it takes: its GPUs, or what its cores carry")
    port: Port = 22
    work_dir: OwnFolder | None = Field(None, description="where this host has another folder than the cluster's")


class Cluster(StrictModel):
    """Machines that serve one model together; the first is where rank 0 runs."""

    hosts: tuple[Host, ...] = Field(min_length=1)
    user: Word = Field(description="the login, the same on every host")
    key: Path = Field(description="private key of the login; never copied anywhere")
    known_hosts: Path = Field(
        Path("~/.ssh/known_hosts"), description="pinned host keys; a host that is not in it is refused"
    )
    interface: Word = Field(description="network interface that ranks talk over, the same on every host")
    work_dir: OwnFolder = Field(description="folder on every host that belongs to treespec")
    device: Literal["cpu", "cuda"] = "cuda"
    python: Word = Field("python3", description="interpreter on the hosts that the environment is made with")
    packages: tuple[Word, ...] = Field(
        ("rsync", "python3-venv"), description="system packages that apt-get brings where they are missing"
    )
    wheels: Literal["index", "copied"] = Field(
        "index", description="Python packages: from the hosts' own index, or fetched here and copied"
    )
    shared_dir: OwnFolder | None = Field(
        None, description="folder on a file system that all hosts share and that holds the models; null: copied"
    )
    launcher: Literal["torchrun", "mpirun"] = "torchrun"
    rendezvous_port: Port = 29500
    connect_timeout_s: float = Field(10.0, gt=0)
    failure_timeout_s: float = Field(60.0, gt=0, description="a failure is told, and everything stopped, within this")

    @field_validator("key", "known_hosts")
    @classmethod
    def _home_is_meant(cls, path: Path) -> Path:
        return path.expanduser()

    @model_validator(mode="after")
    def _hosts_are_different(self) -> Self:
        reached = Counter(f"host {item.host}, port {item.port}" for item in self.hosts)
        addressed = Counter(f"address {item.address}" for item in self.hosts)
        if doubled := [name for name, count in (reached + addressed).items() if count > 1]:
            raise ValueError(f"hosts must differ, received twice: {doubled[0]}")
        return self

    @property
    def num_slots(self) -> int:
        """Ranks that fit on all hosts together."""
        return sum(host.slots for host in self.hosts)

    def work_dir_of(self, host: Host) -> PurePosixPath:
        """The folder on this host that belongs to treespec."""
        return host.work_dir or self.work_dir

    def hostfile(self, num_ranks: int) -> str:
        """``<address> slots=<n>`` per host that is needed, in order; Open MPI and torchrun place ranks alike."""
        return "".join(f"{host.address} slots={count}\n" for host, count in self.ranks_on(num_ranks))

    def ranks_on(self, num_ranks: int) -> list[tuple[Host, int]]:
        """The hosts of the first ``num_ranks`` slots, each with how many ranks it takes.

        Raises ClusterError where there are too few slots, or where a host would hold fewer ranks than the others:
        torchrun starts as many on each.
        """
        if num_ranks < 1:
            raise ClusterError("no ranks", where="hostfile", received=f"{num_ranks} ranks", allowed="at least 1")
        if num_ranks > self.num_slots:
            raise ClusterError(
                "too few slots",
                where="hostfile",
                received=f"{num_ranks} ranks",
                allowed=f"at most {self.num_slots}: " + ", ".join(f"{host.host} {host.slots}" for host in self.hosts),
                fix="lower the degrees of parallelism, or add hosts",
            )
        taken: list[tuple[Host, int]] = []
        for host in self.hosts:
            if left := num_ranks - sum(count for _, count in taken):
                taken.append((host, min(host.slots, left)))
        if len({count for _, count in taken}) > 1:
            raise ClusterError(
                "ranks would be spread unevenly",
                where="hostfile",
                received=", ".join(f"{host.host}: {count}" for host, count in taken),
                allowed="as many ranks on every host that takes part",
                fix="give the hosts equal slots, or choose degrees that fill them",
            )
        return taken


def load_cluster(path: Path) -> Cluster:
    """Read and validate cluster.yaml. Raises ClusterError naming the field and what is allowed."""
    return load_yaml(path, Cluster, "config/cluster.example.yaml")
