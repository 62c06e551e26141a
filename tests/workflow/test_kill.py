"""Real runs that are killed: nothing is lost or measured twice, and no process is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflow.project import NUM_PROMPTS, NUM_REPEATS, Project

pytestmark = [pytest.mark.kill, pytest.mark.slow]

EXPERIMENT = "server_gpu_experiments"
TAG = "TREESPEC_TEST_RUN"


class Run:
    """A workflow in the background whose every process, orphans included, can be found by a mark in its environment."""

    def __init__(self, project: Project) -> None:
        self.mark = f"{TAG}={uuid.uuid4()}"
        self.log = project.folder / f"{self.mark}.log"
        name, value = self.mark.split("=")
        with open(self.log, "w", encoding="utf-8") as log:
            self.workflow = subprocess.Popen(
                [project.python, "-m", "snakemake", EXPERIMENT],
                cwd=project.folder,
                env=os.environ | project.environment | {name: value},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def processes(self) -> dict[int, str]:
        """Command line by pid of every living process of this run."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # ended meanwhile, or not ours
                continue
        return {pid: command for pid, command in found.items() if command}

    def engine(self) -> int:
        """The pid of `treespec run`, or 0 where there is none yet."""
        return next((pid for pid, command in self.processes().items() if "treespec run" in command), 0)


@pytest.fixture
def start(real: Project) -> Iterator[Callable[[], Run]]:
    """Starts runs, and ends whatever a failed test leaves of them."""
    runs: list[Run] = []

    def start() -> Run:
        runs.append(Run(real))
        return runs[-1]

    yield start
    for run in runs:
        for pid in run.processes():
            os.kill(pid, signal.SIGKILL)
        run.workflow.wait()


def wait_for(what: str, condition: Callable[[], object], run: Run, seconds: float = 120) -> None:
    """Until a condition holds; fails with the run's log after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s:\n{run.log.read_text()}"
        time.sleep(0.05)


def complete(project: Project) -> dict[str, tuple[bytes, ...]]:
    """Scenario -> content of its record, for every record that is committed."""
    return {
        path.name.removesuffix(".meta.json"): (
            path.read_bytes(),
            path.with_name(f"{path.name[:-10]}.jsonl").read_bytes(),
        )
        for path in project.raw.glob("*.meta.json")
    }


def num_ours(project: Project) -> int:
    """Planned scenarios that the engine serves; the others are a peer's."""
    return sum(row["mode"] != "transformers" for row in project.plan())


def finish(project: Project, kept: dict[str, tuple[bytes, ...]]) -> None:
    """The same command completes the rest, keeps what was there to the byte and doubles nothing."""
    done = project.snakemake(EXPERIMENT, timeout=300)
    assert done.returncode == 0, done.stdout
    records = complete(project)
    assert {name: records[name] for name in kept} == kept, "a finished record was written again"
    assert records.keys() == {row["scenario"] for row in project.plan()}
    for row in project.plan():
        meta, rows = records[row["scenario"]]
        assert json.loads(meta)["fingerprint"] == row["fingerprint"]
        seen = [(item["repeat"], item["prompt_index"]) for item in map(json.loads, rows.splitlines())]
        assert sorted(seen) == [(repeat, prompt) for repeat in range(NUM_REPEATS) for prompt in range(NUM_PROMPTS)]
    assert not list(project.raw.glob("superseded/*"))
    assert not list(project.raw.rglob("*.tmp*"))
    assert f"{len(kept)} of {num_ours(project)} scenarios are done" in done.stdout


def test_kill_of_the_workflow_in_the_middle(real: Project, start: Callable[[], Run]) -> None:
    run = start()
    wait_for("a first record", lambda: len(complete(real)) >= 3, run)
    run.workflow.kill()
    wait_for("the end of every process", lambda: not run.processes(), run, seconds=5)
    kept = complete(real)
    assert 0 < len(kept) < len(real.plan()), "the kill came too late to test anything"
    finish(real, kept)


def test_kill_of_the_workflow_while_the_engine_starts(real: Project, start: Callable[[], Run]) -> None:
    run = start()
    wait_for("the engine", run.engine, run)
    run.workflow.kill()
    wait_for("the end of every process", lambda: not run.processes(), run, seconds=5)
    finish(real, {})


def test_kill_of_the_engine_in_the_middle(real: Project, start: Callable[[], Run]) -> None:
    run = start()
    wait_for("a first record", lambda: len(complete(real)) >= 3, run)
    os.kill(run.engine(), signal.SIGKILL)
    assert run.workflow.wait(timeout=30) != 0, "a killed engine passed as success"
    wait_for("the end of every process", lambda: not run.processes(), run, seconds=5)
    assert not list((real.folder / "results/tiny").glob("ok/*"))
    finish(real, complete(real))


def test_a_second_run_waits_and_then_finds_everything_done(real: Project, start: Callable[[], Run]) -> None:
    first = start()
    wait_for("the first engine's lock", lambda: "scenarios are done" in first.log.read_text(), first)
    holder = first.engine()
    os.kill(holder, signal.SIGSTOP)  # so that the second is there before the first is done
    second = start()
    wait_for(
        "the second engine's wait", lambda: f"waiting: treespec run, pid {holder}" in second.log.read_text(), second
    )
    os.kill(holder, signal.SIGCONT)
    assert first.workflow.wait(timeout=300) == 0
    assert second.workflow.wait(timeout=60) == 0
    assert f"{num_ours(real)} of {num_ours(real)} scenarios are done" in second.log.read_text()
