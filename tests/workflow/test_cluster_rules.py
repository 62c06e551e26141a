"""A platform that launches by ssh: nothing starts without a passed check, and nothing is looked at for nothing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rules.plan_files import plan_workflow
from rules.plan_writing import write_plan
from tests.workflow.project import Project, jobs
from tests.workflow.stand_ins import put_stand_ins

PREPARED = ["up", "provision", "check"]


@pytest.fixture
def cluster(project: Project) -> Project:
    """Two embedded nodes, two sizes, and programs that are stand-ins."""

    def spread(platform: dict[str, Any]) -> None:
        platform.update(num_nodes=2, ranks_per_node=2, launch="ssh", cluster="embedded")
        models = platform["sizes"]["small"]
        platform["sizes"] = {
            "small": models,
            "large": {**models, "tensor_parallel_degree": 2, "pipeline_parallel_degree": 2},
        }
        platform["overrides"]["server_gpu"].update(sizes=["small", "large"], batch_sizes=[1], peers=[])

    project.edit("platforms/tiny.yaml", spread)
    put_stand_ins(project)
    return project


def calls(project: Project) -> list[str]:
    """What was called since the last look, without the looks at this machine and at the jobs."""
    path = project.folder / "calls.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if not line.startswith(("describe", "check from"))]


def commands(project: Project) -> list[str]:
    return [line.split()[0] for line in calls(project)]


def wheel(project: Project) -> str:
    (path,) = project.folder.glob("results/tiny/engine/*.whl")
    return str(path.relative_to(project.folder))


def test_jobs_wait_for_a_cluster_that_is_up_provisioned_and_checked_in_this_call(cluster: Project) -> None:
    done = cluster.snakemake("server_gpu_experiments")
    assert done.returncode == 0, done.stdout
    *prepared, first, second = calls(cluster)
    file = "results/tiny/cluster/cluster.yaml"
    models = "--models models/draft models/target"
    assert prepared == [
        "up --folder results/tiny/cluster",
        f"provision --cluster {file} --wheel {wheel(cluster)} {models} --prompts prompts/few.json --plugins",
        f"check --cluster {file} {models} --output results/tiny/cluster_check.json",
    ]
    started = {
        f"run --cluster {file} --ranks {num_ranks} --config results/tiny/jobs/server_gpu-{size}.yaml"
        " --output-dir results/tiny/raw"
        for size, num_ranks in {"small": 1, "large": 4}.items()
    }
    assert {first, second} == started
    left = {path.name for path in (cluster.folder / "results/tiny").iterdir()}
    assert not {name for name in left if name.startswith("cluster_")}, "a marker outlived its call"

    assert cluster.snakemake("server_gpu_experiments").returncode == 0
    assert calls(cluster) == [], "with nothing to run, the cluster was looked at"

    next(cluster.raw.glob("server_large-*incr_dec.meta.json")).unlink()
    assert cluster.snakemake("server_gpu_experiments").returncode == 0
    *prepared, run = calls(cluster)
    assert [line.split()[0] for line in prepared] == PREPARED
    assert run in started and "--ranks 4" in run, "a job ran that had nothing to run"


@pytest.mark.slow
@pytest.mark.parametrize(("failing", "called"), [("check", PREPARED), ("run", [*PREPARED, "run", "run"])])
def test_nothing_that_a_failed_call_left_passes_as_prepared(cluster: Project, failing: str, called: list[str]) -> None:
    assert cluster.snakemake("server_gpu_experiments", FAIL_CLUSTER=failing).returncode == 1
    assert commands(cluster) == called
    assert cluster.snakemake("server_gpu_experiments").returncode == 0
    assert commands(cluster) == [*PREPARED, "run", "run"]


@pytest.fixture
def checked(cluster: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the marker of a passed check lies; the working directory is the project's."""
    monkeypatch.chdir(cluster.folder)
    path = Path("results/tiny/cluster_checked")
    path.parent.mkdir(parents=True)
    return path


def look() -> None:
    """Plan and write, as any call does before anything else."""
    write_plan(plan_workflow({"platform": "tiny"}, ["server_gpu"]))


@pytest.mark.parametrize("marked_by", ["ended", "nobody"])
def test_a_killed_calls_markers_do_not_count(checked: Path, marked_by: str) -> None:
    with subprocess.Popen(["true"]) as ended:
        checked.write_text(f"{ended.pid}\n" if marked_by == "ended" else "")
    look()
    assert not checked.exists()


@pytest.fixture
def run_as() -> Iterator[Callable[[str], int]]:
    """Starts a process under a name; returns its number."""
    with ExitStack() as stack:

        def start(name: str) -> int:
            process = stack.enter_context(subprocess.Popen(["bash", "-c", f"exec -a {name} sleep 600"]))
            stack.callback(process.kill)
            while not Path("/proc", str(process.pid), "cmdline").read_bytes().startswith(f"{name}\0".encode()):
                time.sleep(0.01)
            return process.pid

        yield start


@pytest.mark.parametrize(("name", "counts"), [("snakemake", True), ("another", False)])
def test_markers_of_a_running_workflow_stay_for_it(
    checked: Path, run_as: Callable[[str], int], name: str, counts: bool
) -> None:
    checked.write_text(f"{run_as(name)}\n")
    look()
    assert checked.exists() == counts


def test_a_workflow_that_has_an_earlier_ones_number_believes_no_marker(
    checked: Path, run_as: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, the same command has the same number each time."""
    pid = run_as("snakemake")
    monkeypatch.setattr("os.getpid", lambda: pid)
    checked.write_text(f"{pid}\n")
    look()
    assert not checked.exists()


@pytest.mark.slow
def test_targets_by_name_look_each_time(cluster: Project) -> None:
    for _ in range(2):
        assert cluster.snakemake("cluster_check").returncode == 0
        assert commands(cluster) == PREPARED
    assert cluster.snakemake("cluster_down").returncode == 0
    assert calls(cluster) == ["down --folder results/tiny/cluster"]


@pytest.mark.parametrize("target", ["cluster_check", "cluster_down"])
def test_without_a_cluster_the_targets_say_so(project: Project, target: str) -> None:
    put_stand_ins(project)
    done = project.snakemake(target)
    assert done.returncode == 1
    assert "platform tiny: launch local, no cluster: nothing to do" in done.stdout


@pytest.mark.slow
def test_a_cluster_of_ones_own_is_neither_made_nor_taken_down(cluster: Project) -> None:
    cluster.edit("platforms/tiny.yaml", lambda platform: platform.update(cluster="lab.yaml"))
    done = cluster.snakemake("-n", "cluster_check")
    once = ("check_machine", "check_models", "engine_wheel", "provision_cluster", "check_cluster", "cluster_check")
    assert jobs(done.stdout) == dict.fromkeys(once, 1)
    assert cluster.snakemake("cluster_down").returncode == 1
