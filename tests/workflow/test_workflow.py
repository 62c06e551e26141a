"""What `snakemake <target>` does and does not start, called as a user calls it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.workflow.project import REPOSITORY, Project, cpu_seconds, jobs
from tests.workflow.stand_ins import put_stand_ins

EXPERIMENT_RULES = {"placement", "peer", "server_gpu_experiments"}


@pytest.fixture
def mechanics(project: Project) -> Project:
    """A project whose programs are stand-ins."""
    put_stand_ins(project)
    return project


def num_runs(project: Project, program: str = "run") -> int:
    """How often the engine, or a peer, was started to measure."""
    calls = project.folder / "calls.txt"
    return sum(line.startswith(f"{program} ") for line in calls.read_text().splitlines()) if calls.exists() else 0


def test_one_job_per_placement(mechanics: Project) -> None:
    done = mechanics.snakemake("-n", "server_gpu_experiments")
    once = ("check_machine", "check_models", "check_jobs", "placement", "peer", "server_gpu_experiments")
    assert jobs(done.stdout) == dict.fromkeys(once, 1)


def test_all_experiments_are_one_call(mechanics: Project) -> None:
    mechanics.edit("platforms/tiny.yaml", stream_too)
    done = mechanics.snakemake("-n", "all")
    assert {name: count for name, count in jobs(done.stdout).items() if name in EXPERIMENT_RULES} == {
        "placement": 4,
        "peer": 1,
    }


def test_status_is_of_all_experiments(project: Project) -> None:
    project.edit("platforms/tiny.yaml", stream_too)
    report = project.snakemake("status").stdout
    assert "missing: 20" in report
    for experiment in ("server_gpu", "offloading"):
        assert f"to run the rest: snakemake {experiment}_experiments" in report


def stream_too(platform: dict[str, Any]) -> None:
    """Give the tiny platform an offloading experiment of three placements."""
    streamed = {"offload": "disk", "offload_reserve_mib": 7, "max_tree_nodes": 256}
    platform["sizes"]["offloading_small"] = platform["sizes"]["small"] | streamed
    platform["overrides"]["offloading"] = {"sizes": ["small"], "batch_sizes": [1]}


def test_a_dry_run_costs_little_more_than_starting_snakemake(mechanics: Project) -> None:
    """About 1 s each on an idle machine; the ratio holds on a busy one too."""
    before = cpu_seconds()
    mechanics.snakemake("--version")
    start = cpu_seconds() - before
    mechanics.snakemake("-n", "server_gpu_experiments")
    dry_run = cpu_seconds() - before - start
    assert dry_run < 2 * start, "has planning come to import something heavy?"


def test_figures_need_no_experiment(mechanics: Project) -> None:
    done = mechanics.snakemake("-n", "figures")
    assert jobs(done.stdout) == {"parse": 1, "draw_figures": 1, "figures": 1}


def drop_models(project: Project) -> None:
    project.edit("platforms/tiny.yaml", lambda data: data["sizes"]["small"]["target"].update(path="models/nowhere"))


def misspell(name: str) -> Callable[[Project], None]:
    return lambda project: project.edit(name, lambda data: data.update(batchsizes=[1]))


@pytest.mark.parametrize(
    ("spoil", "arguments", "parts"),
    [
        (None, ["--config", "platform=moon"], ["unknown platform", "received: moon", "allowed: ['laptop', 'tiny']"]),
        (misspell("config.yaml"), [], ["config/config.yaml", "'batchsizes'", "allowed: platform, results_dir"]),
        (
            misspell("platforms/tiny.yaml"),
            [],
            ["platforms/tiny.yaml", "'batchsizes'", "allowed: description, num"],
        ),
        (misspell("experiments/server_gpu.yaml"), [], ["experiments/server_gpu.yaml", "'batchsizes'", "batch_sizes"]),
        (drop_models, [], ["model folder holds no weights", "models/nowhere", "no such folder"]),
    ],
)
def test_bad_configuration_is_one_clear_error(
    mechanics: Project, spoil: Callable[[Project], None] | None, arguments: list[str], parts: list[str]
) -> None:
    if spoil:
        spoil(mechanics)
    done = mechanics.snakemake("figures", *arguments)
    assert done.returncode == 1
    assert [part for part in parts if part not in done.stdout] == []
    assert "Traceback" not in done.stdout
    assert not (mechanics.folder / "results").exists()


def test_results_folder_that_cannot_be_written(mechanics: Project) -> None:
    (mechanics.folder / "taken").write_text("a file, not a folder")
    done = mechanics.snakemake("figures", "--config", "results_dir=taken")
    assert done.returncode == 1
    assert "results folder cannot be written; where: taken" in done.stdout
    assert "Traceback" not in done.stdout


def test_wheel_and_machine_lie_with_the_results_wherever_these_are(mechanics: Project) -> None:
    results = mechanics.folder / "else where"
    done = mechanics.snakemake("engine", "--config", f"results_dir={results}")
    assert done.returncode == 0, done.stdout
    assert len(list(results.glob("tiny/engine/treespec-*.whl"))) == 1
    assert (results / "tiny/machine.json").exists()


def test_experiments_run_once_and_records_rule(mechanics: Project) -> None:
    done = mechanics.snakemake("server_gpu_experiments")
    assert done.returncode == 0, done.stdout
    calls = (mechanics.folder / "calls.txt").read_text()
    assert re.search(r"^run from \S*python\S* -m snakemake", calls, re.MULTILINE), f"a shell stands between: {calls}"
    mechanics.snakemake("server_gpu_experiments")
    assert num_runs(mechanics) == 1
    next(mechanics.raw.glob("*incr_dec.meta.json")).unlink()
    mechanics.snakemake("server_gpu_experiments")
    assert num_runs(mechanics) == 2, "a record that is gone was not measured again"


def test_a_peer_runs_after_ours_and_alone_where_only_its_records_are_gone(mechanics: Project) -> None:
    mechanics.snakemake("server_gpu_experiments")
    calls = (mechanics.folder / "calls.txt").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["describe", "check", "run", "peer"]
    names = [path.name.partition(".")[0] for path in (mechanics.folder / "results/tiny/ok").iterdir()]
    assert sorted(names) == ["server_gpu-small", "server_gpu-small-transformers"]
    next(mechanics.raw.glob("*transformers.meta.json")).unlink()
    assert mechanics.snakemake("server_gpu_experiments").returncode == 0
    assert (num_runs(mechanics), num_runs(mechanics, "peer")) == (1, 2)


def test_a_failed_run_leaves_no_marker_and_is_tried_again(mechanics: Project) -> None:
    done = mechanics.snakemake("server_gpu_experiments", FAIL="server_gpu-small")
    assert done.returncode != 0
    assert "this run was told to fail" in done.stdout
    assert not list((mechanics.folder / "results/tiny").glob("ok/*"))
    assert mechanics.snakemake("server_gpu_experiments").returncode == 0
    assert num_runs(mechanics) == 2


def test_a_failed_placement_does_not_keep_the_others_from_running(mechanics: Project) -> None:
    mechanics.edit("platforms/tiny.yaml", stream_too)
    done = mechanics.snakemake("offloading_experiments", FAIL="offloading-small-quantisation_int8")
    assert done.returncode != 0
    calls = (mechanics.folder / "calls.txt").read_text().splitlines()
    assert sum(call.startswith("run ") for call in calls) == 3
    markers = (path.name.partition(".")[0] for path in (mechanics.folder / "results/tiny/ok").iterdir())
    assert sorted(markers) == ["offloading-small", "offloading-small-quantisation_int4"]


def test_a_job_tells_its_experiments_budget(mechanics: Project) -> None:
    (line,) = [
        line for line in mechanics.snakemake("-n", "server_gpu_experiments").stdout.splitlines() if "minutes" in line
    ]
    assert "server_gpu-small (its experiment takes up to 10 minutes on the laptop platform): server_small-1_" in line


def test_a_rule_that_reaches_for_the_network_is_noticed(mechanics: Project) -> None:
    """What lets the test of the whole way prove that nothing does."""
    assert mechanics.snakemake("server_gpu_experiments", CONNECT="1").returncode != 0
    assert "192.0.2.1" in mechanics.network_log.read_text()


def test_figures_follow_the_records_and_start_nothing(mechanics: Project) -> None:
    csv = mechanics.folder / "results/tiny/csv/server.csv"
    assert mechanics.snakemake("figures").returncode == 0
    assert csv.read_text() == ""
    for row in mechanics.plan()[:2]:
        mechanics.write_record(row)
    assert mechanics.snakemake("figures").returncode == 0
    assert len(csv.read_text().splitlines()) == 2
    drawn = csv.stat().st_mtime_ns
    assert "Nothing to be done" in mechanics.snakemake("figures").stdout
    assert csv.stat().st_mtime_ns == drawn

    # Put back from a copy, a record is older than the tables.
    os.utime(next(mechanics.raw.glob("*.jsonl")), (0, 0))
    assert mechanics.snakemake("figures").returncode == 0
    assert csv.stat().st_mtime_ns > drawn

    def measure_more(platform: dict[str, Any]) -> None:
        platform["overrides"]["server_gpu"].update(num_repeats=3, max_new_tokens=16)

    records = {path: path.read_bytes() for path in mechanics.raw.iterdir()}
    mechanics.edit("platforms/tiny.yaml", measure_more)
    assert EXPERIMENT_RULES.isdisjoint(jobs(mechanics.snakemake("figures").stdout))
    assert {path: path.read_bytes() for path in mechanics.raw.iterdir()} == records
    assert num_runs(mechanics) == 0


def test_rules_call_programs(project: Project) -> None:
    files = [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]
    assert [
        file.name for file in files if re.search(r"^\s+(run|script|notebook):", file.read_text(), re.MULTILINE)
    ] == []
    assert len((REPOSITORY / "rules/common.smk").read_text().splitlines()) <= 80


def test_lint(project: Project) -> None:
    done = project.snakemake("--lint")
    assert done.returncode == 0, done.stdout
