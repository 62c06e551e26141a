"""A platform's cluster as the rules see it: its cluster.yaml, and the markers by which jobs wait for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rules.settings import EMBEDDED_CLUSTER, Platform


@dataclass(frozen=True)
class PlannedCluster:
    """The rules name it on every platform; where there is no cluster, nothing waits for it.

    A marker holds the process id of the workflow that made it, and counts for that one only: a cluster that was there
    in an earlier call may be gone.
    """

    platform: Platform
    results: Path

    @property
    def is_embedded(self) -> bool:
        """Whether its nodes are made on this machine."""
        return self.platform.cluster == EMBEDDED_CLUSTER

    @property
    def folder(self) -> str:
        """Where the embedded cluster lives."""
        return f"{self.results}/cluster" if self.is_embedded else ""

    @property
    def file(self) -> str:
        """The cluster.yaml."""
        return f"{self.folder}/cluster.yaml" if self.is_embedded else self.platform.cluster or ""

    @property
    def up(self) -> str:
        """The marker of an embedded cluster that is up."""
        return f"{self.results}/cluster_up"

    @property
    def provisioned(self) -> str:
        """The marker of hosts that have everything."""
        return f"{self.results}/cluster_provisioned"

    @property
    def checked(self) -> str:
        """The marker of a passed check."""
        return f"{self.results}/cluster_checked"

    @property
    def before_provisioning(self) -> list[str]:
        """The markers that provisioning waits for."""
        return [self.up] if self.is_embedded else []

    @property
    def before_jobs(self) -> list[str]:
        """The markers that whatever runs on the hosts waits for."""
        return [self.checked] if self.platform.launcher.needs_cluster else []

    def retire_markers(self) -> None:
        """Remove the markers that no running workflow made: what a failed or killed call left."""
        for marker in map(Path, (self.up, self.provisioned, self.checked)):
            if marker.exists() and not _is_other_workflow(marker.read_text(encoding="utf-8").strip()):
                marker.unlink(missing_ok=True)


def _is_other_workflow(pid: str) -> bool:
    """A call that looks at the same results takes nothing away from a running one; our own has made nothing yet."""
    try:
        return pid != str(os.getpid()) and b"snakemake" in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False
