"""How the jobs of a platform start: one table from the name of a launcher to the words of its command.

Whatever the launcher, the same options follow the words: ``--config JOB --output-dir RAW``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

LauncherName = Literal["local", "ssh", "srun"]
ENGINE = ("treespec", "run")


@dataclass(frozen=True)
class Start:
    """What a job needs to start: its ranks, how many of them fit on a node, and the cluster if there is one."""

    num_ranks: int
    ranks_per_node: int
    cluster: str = ""
    needs_gpus: bool = False

    @property
    def num_nodes(self) -> int:
        """Nodes that the ranks fill; one where they do not even fill that."""
        if self.num_ranks <= self.ranks_per_node:
            return 1
        assert self.num_ranks % self.ranks_per_node == 0, "refused when planning"
        return self.num_ranks // self.ranks_per_node

    @property
    def ranks_on_each(self) -> int:
        """Ranks on each of these nodes."""
        return self.num_ranks // self.num_nodes


def _nothing(_: Start) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True)
class Launcher:
    """A way to start jobs."""

    words: Callable[[Start], tuple[str, ...]]
    is_remote: bool
    """Whether ranks run on nodes, of which there may be several, and not as processes of this machine."""
    needs_cluster: bool = False
    """Whether nodes are told by a cluster.yaml."""
    resources: Callable[[Start], Mapping[str, object]] = _nothing
    """What a scheduler has to be asked for, as Snakemake's resources."""


def _local(_: Start) -> tuple[str, ...]:
    """The engine starts its own ranks."""
    return ENGINE


def _ssh(start: Start) -> tuple[str, ...]:
    return ("python", "-m", "cluster", "run", "--cluster", start.cluster, "--ranks", str(start.num_ranks))


def _srun(start: Start) -> tuple[str, ...]:
    """One task per rank, filled node by node. A single rank is the job itself: a step inside it would wait for ever."""
    if start.num_ranks == 1:
        return ENGINE
    tasks = (f"--nodes={start.num_nodes}", f"--ntasks={start.num_ranks}", f"--ntasks-per-node={start.ranks_on_each}")
    return ("srun", *tasks, "--distribution=block", "--kill-on-bad-exit=1", *ENGINE)


def _allocation(start: Start) -> Mapping[str, object]:
    """What a job that calls srun itself has to hold; without ``mpi`` its steps would find everything taken."""
    extra = [f"--gpus-per-node={start.ranks_on_each}"] if start.needs_gpus else []
    if start.num_ranks == 1:
        return {"slurm_extra": " ".join(extra)} if extra else {}
    extra.append(f"--ntasks-per-node={start.ranks_on_each}")
    return {"mpi": "srun", "nodes": start.num_nodes, "tasks": start.num_ranks, "slurm_extra": " ".join(extra)}


LAUNCHERS: Mapping[LauncherName, Launcher] = {
    "local": Launcher(_local, is_remote=False),
    "ssh": Launcher(_ssh, is_remote=True, needs_cluster=True),
    "srun": Launcher(_srun, is_remote=True, resources=_allocation),
}
