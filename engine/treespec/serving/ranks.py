"""A placement of several ranks: started here by torchrun, or by whoever started this process as one of them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

from treespec.config import Placement, RunConfig
from treespec.errors import ConfigError, TreespecError
from treespec.log import say
from treespec.metrics.records import RecordFolder
from treespec.model.loader import open_model
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.process_group import ProcessGroup, RanksLostError
from treespec.serving.build import serve_as_follower
from treespec.serving.exclusion import exclusive_run
from treespec.serving.job import Job
from treespec.serving.limits import device_of, mesh_of, require_divisible

PR_SET_PDEATHSIG = 1
HELD_BY_PARENT = "TREESPEC_LOCKS_HELD_BY_PARENT"
FAILURE_STATUS, MISTAKE_STATUS = 1, 2
LOST_STATUS = 75  # of a rank that has nothing to reproach itself with (EX_TEMPFAIL of sysexits.h)


def check_ranks(placement: Placement) -> None:
    """Refuse degrees that the model cannot be divided by, before any process starts. Raises TreespecError."""
    require_divisible(open_model(placement.target).spec, mesh_of(placement, 0), placement.name)


def launch_local_ranks(num_ranks: int, arguments: Sequence[str]) -> int:
    """Run this command once per rank on this machine; returns the exit status. The ranks end with this process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    say(f"starting {num_ranks} ranks on this machine")
    # torchrun talks if the number of threads is unset.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {HELD_BY_PARENT: str(os.getpid())}
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
    """Be one rank of a job; the driver writes the records. Returns the number of scenarios that failed.

    A rank that cannot go on ends this process, after one line that names the rank and its host.
    """
    end_with_parent()
    _end_if_orphaned(rank)
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
    try:
        with _exclusion(mesh, output_dir):
            return _serve(config, output_dir, mesh)
    except RanksLostError as error:
        _end(rank, f"the other ranks are gone or silent: {error}", LOST_STATUS)
    except TreespecError as error:
        _end(rank, str(error), MISTAKE_STATUS)
    except (OSError, RuntimeError, MemoryError) as error:  # the device's failures are RuntimeErrors
        told = next(iter(str(error).strip().splitlines()), "no reason given")
        _end(rank, f"{type(error).__name__}: {told}", FAILURE_STATUS)


def _exclusion(mesh: ParallelMesh, output_dir: Path) -> AbstractContextManager[None]:
    """The driver takes the locks, unless the process that started the ranks here holds them already.

    While it waits for another run the others wait for it to load.
    """
    if not mesh.is_driver or HELD_BY_PARENT in os.environ:
        return nullcontext()
    return exclusive_run(RecordFolder(output_dir).folder)


def _serve(config: RunConfig, output_dir: Path, mesh: ParallelMesh) -> int:
    placement = config.placement
    group = ProcessGroup(mesh, device_of(placement), placement.rank_timeout_s, placement.load_timeout_s)
    if mesh.is_driver:
        failed = Job(config, output_dir, group).run()
        if failed:
            say(f"error: {failed} scenarios failed; the same command tries them again")
    else:
        failed = 0
        serve_as_follower(placement, config.scenarios, group)
    group.close()
    return failed


def _end_if_orphaned(rank: int) -> None:
    """The parent's end is only told from when it was asked for: who launched the ranks may be gone by then.

    Between the launcher and a rank stands torchrun alone, which ends with the launcher.
    """
    launcher = os.environ.get(HELD_BY_PARENT)
    if launcher is None:
        return
    try:
        stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    except OSError:  # gone between the two calls
        stat = ") - 0"
    if stat.rpartition(")")[2].split()[1] != launcher:
        _end(rank, "the process that started the ranks is gone", LOST_STATUS)


def _end(rank: int, told: str, status: int) -> NoReturn:
    """End this process with one line, and no traceback in a stream where every rank talks.

    At once: the destructors of the process group abort over messages that will never arrive.
    """
    say(f"error: rank {rank} on {socket.gethostname()}: {told}")
    os._exit(status)


def end_with_parent() -> None:
    """Linux kills this process when the one that started it dies: no rank is left behind."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
