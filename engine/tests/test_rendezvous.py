"""Every launcher's variables become the rendezvous that torch.distributed reads; what one leaves out is told."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.tests.jobs import JobFolder
from treespec.errors import ConfigError
from treespec.parallel.rendezvous import LAUNCHERS, adopt_rendezvous

MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
MPIRUN = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
# As Slurm 22.05 set them for `srun -N2 --ntasks-per-node=2`, and for the script of `sbatch -N2 -n4` itself.
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "1200",
    "SLURM_JOB_NODELIST": "n[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
SRUN = BATCH_SCRIPT | {
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "n[3-4]",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
ADOPTED = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
PORT = {"MASTER_PORT": str(20000 + (31 * 1200 + 2) % 12000)}
# What scontrol answers to the two questions, for any node list.
SCONTROL = """#!/bin/sh
case "$*" in
"show hostnames n[3-4]") printf 'n3\\nn4\\n' ;;
"--oneliner show node n3") echo 'NodeName=n3 Arch=x86_64 NodeAddr=10.1.0.3 NodeHostName=n3.site Port=6818' ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture(autouse=True)
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that knows the step's nodes and nothing else; what the real one says, tests/cluster/ looks at."""
    program = tmp_path / "bin/scontrol"
    program.parent.mkdir()
    program.write_text(SCONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.parametrize(
    ("started", "master"),
    [
        (TORCHRUN | MASTER, MASTER),
        (MPIRUN | MASTER, MASTER),
        (SRUN, {"MASTER_ADDR": "10.1.0.3"} | PORT),
        (SRUN | {"MASTER_ADDR": "10.9.0.1"}, {"MASTER_ADDR": "10.9.0.1"} | PORT),
        (SRUN | {"MASTER_PORT": "7"}, {"MASTER_ADDR": "10.1.0.3", "MASTER_PORT": "7"}),
        (SRUN | MASTER, MASTER),
    ],
    ids=["torchrun", "mpirun", "srun", "srun-own-address", "srun-own-port", "srun-own-both"],
)
def test_a_launchers_variables_are_adopted(started: dict[str, str], master: dict[str, str]) -> None:
    environ = dict(started)
    assert adopt_rendezvous(environ) == 3
    assert environ == started | ADOPTED | master


def test_the_innermost_launcher_counts() -> None:
    outer = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "5"}
    assert adopt_rendezvous(outer | MPIRUN | MASTER) == 3
    assert adopt_rendezvous(outer | MPIRUN | {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"} | MASTER) == 5


@pytest.mark.parametrize(
    "started",
    [
        {},
        BATCH_SCRIPT,
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
        {"WORLD_SIZE": ""},
        {name: TORCHRUN[name] for name in ("RANK", "LOCAL_RANK")} | MASTER,
    ],
    ids=["nothing", "batch-script", "srun-one-task", "mpirun-one-process", "empty", "no-size"],
)
def test_a_process_that_is_alone_is_no_rank(started: dict[str, str]) -> None:
    environ = dict(started)
    assert adopt_rendezvous(environ) is None
    assert environ == started


@pytest.mark.parametrize(
    ("started", "missing"),
    [
        *((TORCHRUN | MASTER, name) for name in ("RANK", "LOCAL_RANK", *MASTER)),
        *((MPIRUN | MASTER, name) for name in ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", *MASTER)),
        *((SRUN, name) for name in ("SLURM_PROCID", "SLURM_LOCALID")),
    ],
)
def test_a_missing_variable_is_named(started: dict[str, str], missing: str) -> None:
    environ = {name: value for name, value in started.items() if name != missing}
    before = dict(environ)
    with pytest.raises(ConfigError, match=rf"^{missing} .*where: a process started by \w+run; .*fix: "):
        adopt_rendezvous(environ)
    assert environ == before


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (["SLURM_JOB_ID"], "^MASTER_PORT not set"),
        (["SLURM_STEP_ID"], "^MASTER_PORT not set"),
        (["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"], "^MASTER_ADDR not set"),
        (["SLURM_STEP_NODELIST"], r"scontrol show hostnames n\[1-4\]; received: unexpected"),
    ],
)
def test_what_srun_leaves_out_is_told(missing: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=f"{told}.*fix: set MASTER_ADDR"):
        adopt_rendezvous({name: value for name, value in SRUN.items() if name not in missing})


def test_a_rank_that_is_no_number_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^OMPI_COMM_WORLD_RANK is not a number; .*received: -1"):
        adopt_rendezvous(MPIRUN | MASTER | {"OMPI_COMM_WORLD_RANK": "-1"})


def test_a_node_without_scontrol_needs_to_be_told_the_address(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol.unlink()
    monkeypatch.setenv("PATH", str(scontrol.parent))
    with pytest.raises(ConfigError, match=r"No such file.*fix: set MASTER_ADDR .* before calling srun"):
        adopt_rendezvous(SRUN | {"MASTER_ADDR": ""})
    told = SRUN | {"MASTER_ADDR": "10.9.0.1"}
    adopt_rendezvous(told)
    assert told["MASTER_PORT"] == PORT["MASTER_PORT"]


def test_steps_of_one_job_and_neighbouring_jobs_meet_at_different_ports() -> None:
    ports = set()
    for job in range(1200, 1230):
        for step in range(4):
            environ = SRUN | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}
            adopt_rendezvous(environ)
            ports.add(int(environ["MASTER_PORT"]))
    assert len(ports) == 30 * 4
    assert min(ports) >= 20000 and max(ports) < 32768


def test_interfaces_are_left_to_others() -> None:
    environ = SRUN | {"GLOO_SOCKET_IFNAME": "ib0"}
    adopt_rendezvous(environ)
    assert environ["GLOO_SOCKET_IFNAME"] == "ib0"
    assert "NCCL_SOCKET_IFNAME" not in environ


def test_each_launcher_is_in_the_table_once() -> None:
    assert [launcher.name for launcher in LAUNCHERS] == ["torchrun", "mpirun", "srun"]


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, treespec.parallel.rendezvous; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_mpirun_starts_ranks_that_write_the_tokens_of_one_process(job: JobFolder) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("needs Open MPI's mpirun; apt-get install --no-install-recommends openmpi-bin")
    assert job.run() == 0
    alone = tokens(job)
    job.placement["tensor_parallel_degree"] = 2
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    done = subprocess.run(
        ["mpirun", "--oversubscribe", "-np", "2", sys.executable, "-m", "treespec", *job.write()],
        env=job.subprocess_environment() | as_root | master,
        text=True,
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "starting 2 ranks" not in done.stderr, "mpirun's processes are the ranks"
    assert [job.meta(name)["config"]["placement"]["tensor_parallel_degree"] for name in job.names] == [2, 2, 2]
    assert tokens(job) == alone


def tokens(job: JobFolder) -> dict[str, list[list[int]]]:
    """What every scenario put out."""
    return {name: [row["output_token_ids"] for row in job.rows(name)] for name in job.names}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
