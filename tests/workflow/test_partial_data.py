"""Tables, figures and status from whatever records there are; an engine that is called at all fails the test."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data_parsing.record_files import SyntheticScenario
from tests.workflow.project import REPOSITORY, Project, jobs

pytestmark = pytest.mark.slow

SEED = 7
NEVER = """
import pathlib, sys
with open("calls.txt", "a") as calls:
    print(*sys.argv, file=calls)
sys.exit("the engine must not be called")
"""


@pytest.fixture
def untouchable(project: Project) -> Project:
    """The project with every experiment, of which only the server's has scenarios, and an engine that must not run."""
    for path in (REPOSITORY / "config/experiments").glob("*.yaml"):
        (project.folder / "config/experiments" / path.name).write_text(path.read_text())
    others = {path.stem: {"sizes": []} for path in (REPOSITORY / "config/experiments").glob("*.yaml")}
    del others["basic_test"], others["server_gpu"]
    project.edit("platforms/tiny.yaml", lambda platform: platform["overrides"].update(others))
    venv = project.folder / "venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix, name))
    python = venv / "bin/python"
    python.symlink_to(sys.executable)
    (venv / "bin/treespec").write_text(f"#!{python}{NEVER}")
    (venv / "bin/treespec").chmod(0o755)
    done = project.snakemake("-n", "parse")  # writes the plan
    assert done.returncode == 0, done.stdout
    return project


def write_records(project: Project, rows: list[dict[str, Any]]) -> None:
    """Whole records of planned scenarios."""
    for row in rows:
        scenario = SyntheticScenario(mode=row["mode"], batch_size=row["batch_size"], fingerprint=row["fingerprint"])
        assert scenario.name == row["scenario"]
        scenario.write(project.raw)


def raw_files(project: Project) -> dict[str, tuple[int, bytes]]:
    """Every file among the records: when it was written and what it holds."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in project.raw.rglob("*") if p.is_file()}


def called_nothing(project: Project) -> bool:
    return not (project.folder / "calls.txt").exists()


def statuses(project: Project) -> dict[str, str]:
    """Scenario -> its status in the table."""
    with open(project.folder / "results/tiny/csv/server.csv", encoding="utf-8", newline="") as file:
        return {row["scenario"]: row["status"] for row in csv.DictReader(file)}


def made(project: Project, folder: str) -> dict[str, bytes]:
    """The files of csv/ or figures/ by name; PDFs carry the time, so that of them only the beginning."""
    paths = sorted((project.folder / "results/tiny" / folder).iterdir())
    return {path.name: path.read_bytes()[: 5 if path.suffix == ".pdf" else None] for path in paths}


def draw(project: Project, target: str = "figures") -> None:
    """The target is made, and by nothing else than parsing and drawing."""
    before = raw_files(project)
    planned = project.snakemake("-n", target)
    assert planned.returncode == 0, planned.stdout
    if "Nothing to be done" not in planned.stdout:
        assert set(jobs(planned.stdout)) <= {"parse", "draw_figures", "figures"}, planned.stdout
    done = project.snakemake(target, timeout=300)
    assert done.returncode == 0, done.stdout
    assert called_nothing(project)
    assert raw_files(project) == before, "a record was touched"


def expected_figures(project: Project) -> set[str]:
    """The names that a dry run says are to be drawn."""
    listed = project.snakemake("-n", "--summary", "figures").stdout
    return {Path(line.split("\t")[0]).name for line in listed.splitlines() if "/figures/" in line.split("\t")[0]}


def test_figures_of_none_some_and_all_records(untouchable: Project) -> None:
    project = untouchable
    draw(project)
    assert set(statuses(project).values()) == {"missing"}
    names = expected_figures(project)
    assert len(names) >= 12
    assert set(made(project, "figures")) == names

    rows = [row for row in project.plan() if row["mode"] != "transformers"]
    write_records(project, rows[::2])
    draw(project)
    some = made(project, "figures")
    assert set(some) == names
    assert {name for name, status in statuses(project).items() if status == "ok"} == {r["scenario"] for r in rows[::2]}

    write_records(project, rows[1::2])
    draw(project)
    assert made(project, "figures")["server_latency.png"] != some["server_latency.png"]
    assert {statuses(project)[row["scenario"]] for row in rows} == {"ok"}
    assert "Nothing to be done" in project.snakemake("figures").stdout


def test_corrupted_records_are_rows_with_their_status(untouchable: Project) -> None:
    project = untouchable
    rows = [row for row in project.plan() if row["mode"] != "transformers"]
    write_records(project, rows)
    whole, *damaged = [row["scenario"] for row in rows]
    cut_meta, cut_rows, binary, empty, folder = damaged
    (project.raw / f"{cut_meta}.meta.json").write_text((project.raw / f"{cut_meta}.meta.json").read_text()[:100])
    (project.raw / f"{cut_rows}.jsonl").write_text((project.raw / f"{cut_rows}.jsonl").read_text()[:-40])
    (project.raw / f"{binary}.jsonl").write_bytes(b"\xff\xfe\x00")
    (project.raw / f"{empty}.jsonl").write_text("")
    (project.raw / f"{folder}.jsonl").unlink()
    (project.raw / f"{folder}.jsonl").mkdir()
    draw(project)
    found = statuses(project)
    assert {name: status for name, status in found.items() if status != "missing"} == {
        whole: "ok",
        **dict.fromkeys(damaged, "incomplete"),
    }
    report = project.snakemake("status")
    assert report.returncode == 0
    assert "incomplete: 5\n" in report.stdout
    assert all(f"  {name}: " in report.stdout for name in damaged)
    assert called_nothing(project)


def test_kills_while_tables_and_figures_are_made(untouchable: Project) -> None:
    project, chance = untouchable, random.Random(SEED)
    write_records(project, [row for row in project.plan() if row["mode"] != "transformers"])
    started = time.monotonic()
    draw(project)
    duration_s = time.monotonic() - started
    tables, figures = made(project, "csv"), made(project, "figures")
    num_killed = 0
    for whom in ("workflow", "program") * 2:
        for folder in ("csv", "figures"):
            # A workflow that cleans up after a program's death takes the folder along with the outputs.
            shutil.rmtree(project.folder / "results/tiny" / folder, ignore_errors=True)
        num_killed += killed(project, whom, chance.uniform(0.3, 1.0) * duration_s / 2)
    assert num_killed >= 2, "runs end before anything is killed"
    # What a cut write may leave: half a figure, half a table, temporary names.
    folder = project.folder / "results/tiny"
    for name in ("csv", "figures"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "figures/server_latency.pdf").write_bytes(b"%PDF")
    (folder / "csv/server.csv").write_text("scenario\n")
    (folder / "csv/.server.csv.host.1.tmp").write_text("scen")
    (folder / "figures/.server_latency.png.host.1.tmp").write_bytes(b"\x89PNG")
    (folder / "csv/server.csv").touch()
    os.utime(folder / "figures/server_latency.pdf", (0, 0))
    for name in ("csv/server.csv", "figures/server_latency.pdf"):
        (folder / name).unlink()
    draw(project)
    assert {n: c for n, c in made(project, "csv").items() if not n.startswith(".")} == tables
    assert {n: c for n, c in made(project, "figures").items() if not n.startswith(".")} == figures


def killed(project: Project, whom: str, delay_s: float) -> bool:
    """Start the figures and kill the workflow, or the program that it runs; whether there was one to kill."""
    run = subprocess.Popen(
        [project.python, "-m", "snakemake", "figures"],
        cwd=project.folder,
        env=os.environ | project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        time.sleep(delay_s)
        victims = [run.pid] if whom == "workflow" else programs(project)
        if run.poll() is not None or not victims:
            return False
        os.kill(victims[0], signal.SIGKILL)
        run.wait(timeout=60)
        return True
    except ProcessLookupError:
        return False
    finally:
        if run.poll() is None:
            run.wait(timeout=120)
        wait_for_the_end_of(project)


def programs(project: Project) -> list[int]:
    """Parsing or drawing programs that work in the project's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            is_ours = (folder / "cwd").resolve() == project.folder.resolve()
        except OSError:  # ended meanwhile
            continue
        if is_ours and b"\0-m\0" in words and (b"\0data_parsing\0" in words or b"\0figures\0--csv-dir" in words):
            found.append(int(folder.name))
    return found


def wait_for_the_end_of(project: Project, seconds: float = 60) -> None:
    """A killed workflow leaves its program to end by itself: it only reads records and writes whole files."""
    deadline = time.monotonic() + seconds
    while programs(project):
        assert time.monotonic() < deadline, "a program goes on"
        time.sleep(0.1)


def test_status_is_a_line_per_placement_and_names_what_is_not_done(untouchable: Project) -> None:
    project = untouchable
    rows = [row for row in project.plan() if row["mode"] != "transformers"]
    write_records(project, rows[:2])
    project.write_record(rows[2], status="failed", error="no memory\nat all", num_rows=0)
    project.write_record(rows[3], fingerprint="0" * 64)
    report = project.snakemake("status").stdout
    (line,) = [line for line in report.splitlines() if line.startswith("server_gpu ") and "server_gpu-small" in line]
    total = len(project.plan())
    assert line.split()[2:] == [str(total), "2", "1", "1", ".", str(total - 4)]
    assert f"failed: 1\n  {rows[2]['scenario']}: no memory at all\n" in report
    assert "superseded: 1\n" in report
    assert "to run the rest: snakemake server_gpu_experiments" in report
    assert "figures: 0 of" in report
    assert "to draw them: snakemake figures" in report
    assert called_nothing(project)
    draw(project)
    assert "not drawn" not in project.snakemake("status").stdout
    write_records(project, rows[4:5])
    assert "older than the records: " in project.snakemake("status").stdout


def test_status_of_several_hundred_scenarios_stays_short(untouchable: Project) -> None:
    path = untouchable.folder / "hundreds.json"
    rows = [SyntheticScenario(batch_size=number).plan_entry() for number in range(1, 401)]
    path.write_text(json.dumps({"table": "server", "scenarios": rows}))
    for row in rows[:100]:
        untouchable.write_record(row, status="failed", error=f"reason {row['batch_size']}", num_rows=0)
    command = [sys.executable, "-m", "data_parsing", "status", "--plan", str(path), "--raw-dir", str(untouchable.raw)]
    done = subprocess.run(command, cwd=untouchable.folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 70
    assert "failed: 100" in lines
    assert "  and 60 more" in lines
    assert "missing: 300" in lines
    assert "  and 288 more" in lines
