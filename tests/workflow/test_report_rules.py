"""The targets report and figures with raw_dir: what they make, that they start nothing, and Snakemake's own report."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from report.png import description
from rules.settings import WorkflowConfig, validated
from tests.workflow.project import REPOSITORY, Project, jobs
from treespec.errors import ConfigError

GOLDEN = REPOSITORY / "tests/data_parsing/golden"


@pytest.fixture
def whole(project: Project) -> Project:
    """The project with what the page and the verdicts are made by, and every experiment; this one runs the server's."""
    for name in ("report", "claims", "CITATION.cff"):
        if not (project.folder / name).exists():
            (project.folder / name).symlink_to(REPOSITORY / name)
    experiments = sorted((REPOSITORY / "config/experiments").glob("*.yaml"))
    for path in experiments:
        (project.folder / "config/experiments" / path.name).write_text(path.read_text())
    left_out = {path.stem for path in experiments} - {"basic_test", "server_gpu"}
    project.edit(
        "platforms/tiny.yaml",
        lambda platform: platform["overrides"].update({name: {"sizes": []} for name in left_out}),
    )
    return project


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of the original artifact's outputs."""
    folder = tmp_path / "their outputs"
    folder.mkdir()
    for name, golden in {
        "server_small-1_batchsize-incr_dec.out": "artifact.out",
        "server_small-1_batchsize-tree_specinfer.out": "release_2023.out",
        "server_small-2_batchsize-tree_specinfer.txt": "artifact.txt",
        "offloading_small_1.txt": "flexflow_serve.txt",
    }.items():
        (folder / name).write_bytes((GOLDEN / golden).read_bytes())
    return folder


def test_a_report_starts_no_experiment(whole: Project) -> None:
    done = whole.snakemake("-n", "report")
    assert done.returncode == 0, done.stdout
    planned = jobs(done.stdout)
    assert {"parse": 1, "draw_figures": 1, "judge_claims": 1, "report": 1}.items() <= planned.items()
    assert not planned.keys() & {"placement", "peer", "check_modes", "audit_losslessness"}


def test_raw_dir_draws_nothing_of_ours(whole: Project, theirs: Path) -> None:
    done = whole.snakemake("-n", "figures", "--config", f"raw_dir={theirs}")
    assert done.returncode == 0, done.stdout
    assert jobs(done.stdout) == {"parse_original": 1, "draw_original": 1, "figures": 1}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "raw_dir: no such folder (received '{}')"),
        ("empty", "raw_dir: holds no .out or .txt file of the original artifact (received '{}')"),
        ("a_file.out", "raw_dir: a file (received '{}')"),
    ],
)
def test_a_raw_dir_that_is_none_is_refused(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file.out").write_text("")
    folder = tmp_path / name
    with pytest.raises(ConfigError) as refused:
        validated(WorkflowConfig, {"platform": "laptop", "raw_dir": str(folder)}, "config/config.yaml")
    assert told.format(folder) in str(refused.value)


@pytest.mark.slow
def test_their_outputs_are_drawn_apart_from_ours(whole: Project, theirs: Path) -> None:
    done = whole.snakemake("figures", "--config", f"raw_dir={theirs}")
    assert done.returncode == 0, done.stdout
    (apart,) = whole.folder.glob("results/original-their outputs-??????")
    caption = description((apart / "figures/server_latency.png").read_bytes())
    assert f"Logs: folder {theirs}." in caption
    assert "3 of 3 logs are drawn." in caption
    assert (apart / "csv/offloading_small.csv").is_file()
    ours = whole.folder / "results/tiny"
    assert not (ours / "figures").exists() and not (ours / "csv").exists()
    # What is gone there is gone here: no table of an earlier call stays.
    (theirs / "offloading_small_1.txt").unlink()
    done = whole.snakemake("figures", "--config", f"raw_dir={theirs}")
    assert done.returncode == 0, done.stdout
    assert not (apart / "csv/offloading_small.csv").exists()


@pytest.mark.slow
def test_the_page_the_crate_and_snakemakes_own_report(whole: Project) -> None:
    done = whole.snakemake("report", timeout=300)
    assert done.returncode == 0, done.stdout
    results = whole.folder / "results/tiny"
    page = (results / "report.html").read_bytes()
    assert b"snakemake server_gpu_experiments" in page
    graph = json.loads((results / "ro-crate-metadata.json").read_text())["@graph"]
    (listed,) = (entity for entity in graph if entity["@id"] == "report.html")
    assert listed["sha256"] == hashlib.sha256(page).hexdigest()
    for name in ("own.html", "own.zip"):
        done = whole.snakemake("--report", name, "report")
        assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(whole.folder / "own.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert {"server_latency.png", "claims.csv", "report.html"} <= names
    assert (whole.folder / "own.html").stat().st_size > len(page)
    assert not whole.network_log.exists()
