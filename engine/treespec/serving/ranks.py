"""A placement of several ranks: started here by torchrun, or by whoever started this process as one of them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from treespec.config import Placement, RunConfig
from treespec.errors import ConfigError
from treespec.log import say
from treespec.model.loader import open_model
from treespec.parallel.process_group import ProcessGroup
from treespec.serving.build import device_of, mesh_of, require_divisible, serve_as_follower
from treespec.serving.job import Job

PR_SET_PDEATHSIG = 1


def check_ranks(placement: Placement) -> None:
    """Refuse degrees that the model cannot be divided by, before any process starts. Raises TreespecError."""
    require_divisible(open_model(placement.target).spec, mesh_of(placement, 0), placement.name)


def launch_local_ranks(num_ranks: int, arguments: Sequence[str]) -> int:
    """Run this command once per rank on this machine; returns the exit status. The ranks end with this process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    say(f"starting {num_ranks} ranks on this machine")
    environment = os.environ | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")
    }  # torchrun talks if it is unset
    with subprocess.Popen(
        [*command, "-m", "treespec", *arguments],
        env=environment,
        preexec_fn=end_with_parent,  # noqa: PLW1509
        start_new_session=True,  # an interrupt is for this process, which then ends the ranks without their last words
    ) as ranks:
        try:
            return ranks.wait()
        except BaseException:
            ranks.kill()
            raise


def run_as_rank(config: RunConfig, output_dir: Path, rank: int) -> int:
    """Be one rank of a job; the driver writes the records. Returns the number of scenarios that failed."""
    end_with_parent()
    placement = config.placement
    mesh = mesh_of(placement, rank)
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size != mesh.num_ranks:
        raise ConfigError(
            "another number of processes than the placement has ranks",
            where=f"placement {placement.name!r}",
            received=f"{world_size} processes",
            allowed=f"{mesh.num_ranks} = tensor_parallel_degree x pipeline_parallel_degree",
        )
    group = ProcessGroup(mesh, device_of(placement), placement.rank_timeout_s)
    try:
        if not mesh.is_driver:
            serve_as_follower(placement, config.scenarios, group)
            return 0
        return Job(config, output_dir, group).run()
    finally:
        group.close()


def end_with_parent() -> None:
    """Linux kills this process when the one that started it dies: no rank is left behind."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
