"""A real Slurm of two nodes starts the engine by srun, and Snakemake's jobs with the slurm profile."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from engine.tests.checkpoints import VOCAB_SIZE, text_of
from engine.tests.conftest import TinyModels
from engine.tests.decoding import ragged_prompts
from engine.tests.jobs import JobFolder
from tests.cluster.slurm import NODES, Slurm, lacking, running_slurm

pytestmark = [pytest.mark.ssh, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
LINKED = (
    *("Snakefile", "rules", "profiles", "config", "envs", "models", "prompts", "paper"),
    *("engine", "benchmarks", "cluster", "data_parsing", "figures"),
)
SRUN = ("srun", "--nodes=2", "--ntasks-per-node=2", "--distribution=block", "--kill-on-bad-exit=1", "--input=none")
NUM_RANKS = 4
FAILURE_TIMEOUT_S = 60
SNAKEFILE = """
rule all:
    input: "alone.done", "spread.done"

rule alone:
    output: touch("alone.done")
    shell: "{config[alone]}"

rule spread:
    output: touch("spread.done")
    resources: mpi="srun", nodes=2, tasks_per_node=2
    shell: "{config[spread]}"
"""
HOLD = """
import sys, time
from pathlib import Path
from tests.cluster.slurm import running_slurm

with running_slurm(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two idle nodes, for all tests of this file."""
    if reason := lacking():
        pytest.skip(reason)
    with running_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """The engine's random checkpoints."""
    return TinyModels(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def job(tiny: TinyModels, tmp_path: Path) -> JobFolder:
    """Three modes on four prompts; the target's layers in two stages of two ranks."""
    prompts = [text_of(ids) for ids in ragged_prompts(seed=7, count=4, longest=20, vocab_size=VOCAB_SIZE)]
    made = JobFolder.create(tmp_path, tiny.target("gqa"), tiny.draft("gqa"), prompts)
    made.placement |= {"tensor_parallel_degree": 2, "pipeline_parallel_degree": 2, "rank_timeout_s": 30}
    made.environment["OMP_NUM_THREADS"] = "1"
    return made


def start(slurm: Slurm, job: JobFolder, *srun: str) -> subprocess.Popen[str]:
    """One process per rank, on the nodes."""
    return slurm.start(*srun, *treespec(job), environment=job.subprocess_environment())


def treespec(job: JobFolder) -> list[str]:
    """The command line of the job as it is now."""
    return [sys.executable, "-m", "treespec", *job.write()]


def tokens(job: JobFolder) -> dict[str, list[list[int]]]:
    """What every scenario put out."""
    return {name: [row["output_token_ids"] for row in job.rows(name)] for name in job.names}


def tokens_of_one_process(job: JobFolder) -> dict[str, list[list[int]]]:
    """The same job served by one process, in a results folder that is empty again afterwards."""
    degrees = {"tensor_parallel_degree": 1, "pipeline_parallel_degree": 1}
    alone = JobFolder(job.root, job.placement | degrees, job.scenarios, job.environment)
    run = alone.start()
    _, told = run.communicate(timeout=240)
    assert run.returncode == 0, told[-3000:]
    expected = tokens(alone)
    for path in alone.results.iterdir():
        path.unlink()
    return expected


def wait_for_ranks(slurm: Slurm, run: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids by rank once all ranks are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and run.poll() is None:
        if len(ranks := slurm.tasks()) == NUM_RANKS:
            return ranks
        time.sleep(0.1)
    raise AssertionError(f"the ranks did not start: {run.communicate(timeout=10)}")


def wait_until_idle(slurm: Slurm) -> str:
    """What is still there of a job some seconds after it has ended: nothing, if all is well."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        queued = slurm.run("squeue", "--noheader").stdout
        alive = [str(pid) for pid, variables in slurm.processes().items() if "SLURM_STEP_NUM_TASKS" in variables]
        if not (left := queued + " ".join(alive)):
            break
        time.sleep(0.2)
    return left


def node_of(pid: int) -> str:
    """The Slurm node that a process was started on."""
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(word.split(b"=")[1].decode() for word in words if word.startswith(b"SLURMD_NODENAME="))


def test_srun_starts_ranks_that_write_the_tokens_of_one_process(slurm: Slurm, job: JobFolder) -> None:
    expected = tokens_of_one_process(job)
    run = start(slurm, job, *SRUN)
    placed = {rank: node_of(pid) for rank, pid in wait_for_ranks(slurm, run).items()}
    _, told = run.communicate(timeout=240)
    assert run.returncode == 0, told[-3000:]
    assert "starting" not in told, "srun's processes are the ranks"
    assert placed == {0: NODES[0], 1: NODES[0], 2: NODES[1], 3: NODES[1]}
    assert len(job.complete()) == len(expected) == 3
    assert tokens(job) == expected


@pytest.mark.kill
@pytest.mark.parametrize("victim", [0, 2], ids=["follower", "driver"])
def test_a_killed_rank_ends_the_job_soon_and_leaves_nothing_behind(slurm: Slurm, job: JobFolder, victim: int) -> None:
    job.change(max_new_tokens=40, num_repeats=2000)
    run = start(slurm, job, *SRUN)
    ranks = wait_for_ranks(slurm, run)
    time.sleep(8)  # rendezvous and loading are over: what is killed is serving
    assert run.poll() is None
    os.kill(ranks[victim], signal.SIGKILL)
    _, told = run.communicate(timeout=FAILURE_TIMEOUT_S)
    assert run.returncode != 0, told[-2000:]
    assert f"task {victim}: Killed" in told, "the message names the task"
    assert wait_until_idle(slurm) == ""
    assert job.complete() == []


def test_a_batch_script_starts_its_own_ranks(slurm: Slurm, job: JobFolder) -> None:
    """sbatch --ntasks=4 sets SLURM_NTASKS and SLURM_PROCID for the script too, but nobody else was started."""
    job.placement |= {"pipeline_parallel_degree": 1}
    script, log = job.root / "job.sh", job.root / "log"
    script.write_text('#!/bin/sh\nexec "$@"\n')
    submitted = ("sbatch", "--wait", "--nodes=2", "--ntasks=4", f"--output={log}", str(script), *treespec(job))
    done = slurm.run(*submitted, timeout=240, environment=job.subprocess_environment())
    assert done.returncode == 0, done.stderr + log.read_text()[-3000:]
    assert "starting 2 ranks on this machine" in log.read_text()
    assert len(job.complete()) == 3


def snakemake(slurm: Slurm, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Snakemake with the slurm profile, stderr in stdout."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", str(REPOSITORY / "profiles/slurm"), *arguments],
        cwd=folder,
        env=os.environ | slurm.environment | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )


def test_jobs_of_the_profile_serve_on_one_node_and_on_two(slurm: Slurm, job: JobFolder, tmp_path: Path) -> None:
    """A rule that calls srun spreads its ranks; in the other, Snakemake's own step of one task is no launcher."""
    expected = tokens_of_one_process(job)
    folders = {name: tmp_path / name for name in ("alone", "spread")}
    commands = {}
    for name, start_words in (("alone", ()), ("spread", SRUN)):
        folders[name].mkdir()
        served = JobFolder(folders[name], job.placement, job.scenarios, job.environment)
        commands[name] = shlex.join([*start_words, *treespec(served)])
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config.json").write_text(json.dumps(commands))
    environment = {name: job.subprocess_environment()[name] for name in ("PYTHONPATH", "TMPDIR", "OMP_NUM_THREADS")}
    done = snakemake(slurm, tmp_path, "--configfile", "config.json", **environment)
    assert done.returncode == 0, done.stdout[-3000:]
    for folder in folders.values():
        assert tokens(JobFolder(folder, job.placement, job.scenarios)) == expected
    assert "Falling back to 'sacct'" not in done.stdout


def test_this_workflow_runs_its_experiments_on_nodes(slurm: Slurm, tmp_path: Path) -> None:
    """One rank as the job itself, four on two nodes by srun inside a job; both write the same."""
    for name in LINKED:
        (tmp_path / name).symlink_to(REPOSITORY / name)
    platform = yaml.safe_load((REPOSITORY / "config/platforms/two_nodes_local.yaml").read_text())
    platform |= {"launch": "srun", "ranks_per_node": 2}
    del platform["cluster"], platform["sizes"]["medium"]
    platform["sizes"]["large"] |= {"tensor_parallel_degree": 2}
    platform["overrides"]["server_gpu"] |= {"sizes": ["small", "large"], "batch_sizes": [2], "num_prompts": 2}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(platform))
    fitting = ("--set-resources", "placement:mem_mb=4000", "--set-threads", "placement=1")
    done = snakemake(slurm, tmp_path, "server_gpu_experiments", *fitting, "--config", "platform=site.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    raw = tmp_path / "results/site/raw"
    modes = ("incr_dec", "sequence_specinfer", "tree_specinfer")
    names = [f"2_batchsize-{mode}-max_new_tokens_16.jsonl" for mode in modes]
    small, large = ([output(raw / f"server_{size}-{name}") for name in names] for size in ("small", "large"))
    assert small == large
    assert len(small[0]) == 2


def output(path: Path) -> list[list[int]]:
    return [json.loads(line)["output_token_ids"] for line in path.read_text().splitlines()]


@pytest.mark.kill
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_no_daemon_outlives_the_test_run(tmp_path: Path, how: signal.Signals) -> None:
    if reason := lacking():
        pytest.skip(reason)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    left = Slurm(tmp_path)
    assert len(left.processes()) >= 4
    holder.send_signal(how)
    holder.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while left.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    outlived = left.processes()
    for pid in outlived:
        os.kill(pid, signal.SIGKILL)
    assert outlived == {}
