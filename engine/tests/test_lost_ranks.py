"""Ranks that wait, and ranks that end: bounded, in one line that names the rank and its host, each with its status."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.tests.jobs import JobFolder
from treespec.config import load_run_config
from treespec.errors import CapacityError
from treespec.parallel.process_group import RanksLostError
from treespec.serving import ranks

HOST = socket.gethostname()
LOST = ranks.LOST_STATUS


@pytest.mark.parametrize(
    ("failure", "status", "told"),
    [
        (
            RanksLostError("Connection closed by peer"),
            LOST,
            "the other ranks are gone or silent: Connection closed by peer",
        ),
        (CapacityError("too large", received="9 MiB"), 2, "too large; received: 9 MiB"),
        (MemoryError(), 1, "MemoryError: no reason given"),
        (RuntimeError("CUDA out of memory.\nTried to\n"), 1, "RuntimeError: CUDA out of memory."),
    ],
)
def test_a_rank_that_cannot_go_on_says_so_in_one_line(
    job: JobFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
    status: int,
    told: str,
) -> None:
    def fail(*arguments: object) -> int:
        raise failure

    monkeypatch.setattr(ranks, "_serve", fail)
    monkeypatch.setattr(ranks, "end_with_parent", lambda: None)
    monkeypatch.setattr(ranks.os, "_exit", sys.exit)
    monkeypatch.setenv("WORLD_SIZE", "2")
    job.placement |= {"pipeline_parallel_degree": 2}
    job.write()
    with pytest.raises(SystemExit) as ended:
        ranks.run_as_rank(load_run_config(job.config_file), job.results, rank=1)
    assert ended.value.code == status
    assert capsys.readouterr().err == f"treespec: error: rank 1 on {HOST}: {told}\n"


class Ranks:
    """The ranks of a job as processes of this one, without a launcher that would end one when another ends."""

    def __init__(self, job: JobFolder, num_ranks: int) -> None:
        arguments, port = job.write(), free_port()
        self._errors = [job.root / f"rank{rank}.err" for rank in range(num_ranks)]
        self.processes = []
        for rank, path in enumerate(self._errors):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks)}
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
            environment = job.subprocess_environment() | place | meeting
            with open(path, "wb") as told:
                command = [sys.executable, "-m", "treespec", *arguments]
                self.processes.append(subprocess.Popen(command, env=environment, stderr=told, stdout=told))

    def told(self, rank: int) -> str:
        """What a rank has said."""
        return self._errors[rank].read_text(encoding="utf-8")

    def errors(self, rank: int) -> list[str]:
        """What it has said of failures; everything but the progress of the job."""
        return [
            line for line in self.told(rank).splitlines() if "scenarios are done" not in line and "left" not in line
        ]

    def wait_until_serving(self, driver: int) -> None:
        """Until the first passes are over."""
        for _ in range(1200):
            if "repeat 1" in self.told(driver):
                return
            assert self.processes[driver].poll() is None, self.told(driver)
            time.sleep(0.1)
        raise AssertionError("nothing was served")

    def wait(self, rank: int, seconds: float) -> int:
        """The exit status of a rank that ends in time."""
        try:
            return self.processes[rank].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"rank {rank} goes on after {seconds} s: {self.told(rank)[-2000:]}") from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def pipelined(job: JobFolder) -> JobFolder:
    """Two stages; the second drives."""
    job.placement |= {"pipeline_parallel_degree": 2, "rank_timeout_s": 4}
    return job


@pytest.fixture
def started() -> Iterator[list[Ranks]]:
    """What is put in here is ended, whatever the test does."""
    all_ranks: list[Ranks] = []
    yield all_ranks
    for process in (process for each in all_ranks for process in each.processes):
        process.kill()
        process.wait()


def is_lost(line: str, rank: int) -> bool:
    return line.startswith(f"treespec: error: rank {rank} on {HOST}: the other ranks are gone or silent: ")


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.parametrize(
    ("victim", "event"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)]
)
def test_a_rank_that_loses_the_other_ends_in_time_with_one_line(
    pipelined: JobFolder, started: list[Ranks], victim: int, event: signal.Signals
) -> None:
    pipelined.change(max_new_tokens=40, num_repeats=2000)
    run = Ranks(pipelined, 2)
    started.append(run)
    run.wait_until_serving(driver=1)
    run.processes[victim].send_signal(event)
    survivor = 1 - victim
    assert run.wait(survivor, seconds=30) == LOST
    errors = run.errors(survivor)
    assert len(errors) == 1 and is_lost(errors[0], survivor), run.told(survivor)[-3000:]
    assert pipelined.complete() == []


@pytest.mark.slow
def test_a_slow_loader_is_waited_for_as_long_as_loading_may_take(pipelined: JobFolder, started: list[Ranks]) -> None:
    """The driver alone reads plugins; this one takes longer than a rank waits for another while serving."""
    plugin = pipelined.root / "slow.py"
    plugin.write_text("import time\ntime.sleep(9)\nDRAFTERS = {}\n", encoding="utf-8")
    pipelined.placement |= {"plugins": [str(plugin)]}
    patient = Ranks(pipelined, 2)
    started.append(patient)
    assert [patient.wait(rank, seconds=120) for rank in (0, 1)] == [0, 0], patient.told(0) + patient.told(1)
    assert pipelined.complete() == pipelined.names
    plugin.write_text("import time\ntime.sleep(40)\nDRAFTERS = {}\n", encoding="utf-8")
    pipelined.placement |= {"load_timeout_s": 12}
    hasty = Ranks(pipelined, 2)
    started.append(hasty)
    assert hasty.wait(0, seconds=60) == LOST
    errors = hasty.errors(0)
    assert len(errors) == 1 and is_lost(errors[0], 0), hasty.told(0)


@pytest.mark.slow
def test_a_followers_damaged_weights_are_one_line_of_that_rank(pipelined: JobFolder, started: list[Ranks]) -> None:
    """The first layer is the follower's: the driver never reads it."""
    source, folder = Path(pipelined.placement["target"]["path"]), pipelined.root / "damaged"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    pipelined.placement["target"] = {"path": str(folder)}
    run = Ranks(pipelined, 2)
    started.append(run)
    assert (run.wait(0, seconds=60), run.wait(1, seconds=30)) == (2, LOST)
    assert len(run.errors(0)) == 1, run.told(0)
    assert run.errors(0)[0].startswith(f"treespec: error: rank 0 on {HOST}: tensor 'model.layers.0.mlp.up_proj.weight'")
    assert len(run.errors(1)) == 1 and is_lost(run.errors(1)[0], 1), run.told(1)
    assert pipelined.complete() == []
