"""Where the ranks of a job meet: what each launcher tells its processes, in the names torch.distributed reads.

One table for torchrun, Open MPI's mpirun and Slurm's srun. It says nothing of network interfaces: GLOO_SOCKET_IFNAME
and NCCL_SOCKET_IFNAME are for whoever knows the machines.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

from treespec.errors import ConfigError

MASTER = ("MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, NUM_PORTS = 20000, 12000  # below the ports that Linux gives to outgoing connections, 32768 and up
SCONTROL_TIMEOUT_S = 30


@dataclass(frozen=True)
class Launcher:
    """A program that starts the ranks, and the variables by which it tells a process which rank it is."""

    name: str
    rank: str
    world_size: str  # also what it is known by: no process has this variable without the launcher
    local_rank: str
    master_fix: str
    derive_master: Callable[[Mapping[str, str]], dict[str, str]] | None = None  # called where MASTER_ADDR is not given

    def rank_variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """RANK, WORLD_SIZE and LOCAL_RANK. Raises ConfigError where one is missing or no number."""
        own = {"RANK": self.rank, "WORLD_SIZE": self.world_size, "LOCAL_RANK": self.local_rank}
        return {name: str(self._number(environ, variable)) for name, variable in own.items()}

    def master_variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """MASTER_ADDR and MASTER_PORT: what is given stands, the rest is derived. Raises ConfigError."""
        given = {name: environ[name] for name in MASTER if environ.get(name)}
        if len(given) < len(MASTER) and self.derive_master is not None:
            given = self.derive_master({**environ, **given}) | given
        if missing := [name for name in MASTER if name not in given]:
            raise ConfigError(
                f"{' and '.join(missing)} not set: the ranks cannot find each other",
                where=f"a process started by {self.name}",
                fix=self.master_fix,
            )
        return given

    def _number(self, environ: Mapping[str, str], variable: str) -> int:
        received = environ.get(variable, "")
        if not received.isdecimal():
            raise ConfigError(
                f"{variable} is not a number",
                where=f"a process started by {self.name}",
                received=received or "nothing",
                fix=f"start all ranks with {self.name}, or unset {self.world_size} to start them from here",
            )
        return int(received)


def adopt_rendezvous(environ: MutableMapping[str, str]) -> int | None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT as the launcher meant them; returns the rank.

    None, and nothing is set, where no launcher started this process or where it started this one alone, as Snakemake
    does on a Slurm node. Raises ConfigError naming what the launcher left out.
    """
    launcher = next((item for item in LAUNCHERS if environ.get(item.world_size, "") not in ("", "1")), None)
    if launcher is None:
        return None
    adopted = launcher.rank_variables(environ)
    environ.update(adopted | launcher.master_variables(environ))
    return int(adopted["RANK"])


def _slurm_master(environ: Mapping[str, str]) -> dict[str, str]:
    """The address of the step's first node, where task 0 is, and a port that the job's other steps do not use."""
    job, step = (environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    master = {}
    if job.isdecimal() and step.isdecimal():
        master["MASTER_PORT"] = str(FIRST_PORT + (31 * int(job) + int(step)) % NUM_PORTS)
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    if nodes and not environ.get("MASTER_ADDR"):
        first = _scontrol("show", "hostnames", nodes).split()[0]
        # The address Slurm itself uses: a node's name need not resolve.
        address = re.search(r"\bNodeAddr=(\S+)", _scontrol("--oneliner", "show", "node", first))
        master["MASTER_ADDR"] = address[1] if address else first
    return master


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=SCONTROL_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        raise ConfigError(
            "Slurm does not say where the first rank is", where=" ".join(command), received=told.strip(), fix=SRUN_FIX
        ) from error
    return done.stdout


SRUN_FIX = "set MASTER_ADDR to the first node's address and MASTER_PORT to a free port there before calling srun"

# Innermost first: inside a Slurm job mpirun starts its daemons by srun, and torchrun may be started by either, so that
# a process may see the variables of several.
LAUNCHERS = (
    Launcher(
        name="torchrun",
        rank="RANK",
        world_size="WORLD_SIZE",
        local_rank="LOCAL_RANK",
        master_fix="set them as torchrun does",
    ),
    Launcher(
        name="mpirun",
        rank="OMPI_COMM_WORLD_RANK",
        world_size="OMPI_COMM_WORLD_SIZE",
        local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
        master_fix="mpirun -x MASTER_ADDR=<address of the first host> -x MASTER_PORT=<free port there> ...",
    ),
    Launcher(
        name="srun",
        rank="SLURM_PROCID",
        world_size="SLURM_STEP_NUM_TASKS",  # SLURM_NTASKS is there in the batch script too, where nothing was started
        local_rank="SLURM_LOCALID",
        master_fix=SRUN_FIX,
        derive_master=_slurm_master,
    ),
)
