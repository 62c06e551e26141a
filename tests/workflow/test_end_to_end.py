"""The whole way on the shipped models, small: basic test, experiments, tables, figures; then a change of mind."""

from __future__ import annotations

import csv

import pytest

from tests.workflow.project import Project

pytestmark = pytest.mark.slow

MODES = ("incr_dec", "sequence_specinfer", "tree_specinfer")


def latencies(project: Project) -> dict[str, list[float]]:
    """Column -> values of the artifact's table."""
    with open(project.folder / "results/tiny/csv/server_small.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {mode: [float(row[f"{mode}_per_token_latency_ms"] or "nan") for row in rows] for mode in MODES}


def override(project: Project, **changes: int) -> None:
    """Change the platform's settings of the server experiment."""
    project.edit("platforms/tiny.yaml", lambda platform: platform["overrides"]["server_gpu"].update(changes))


def test_from_models_to_figures_and_on(real: Project) -> None:
    done = real.snakemake("basic_test", "server_gpu_experiments", timeout=400)
    assert done.returncode == 0, done.stdout
    assert "Test passed!" in done.stdout
    done = real.snakemake("figures")
    assert done.returncode == 0, done.stdout
    assert all(value > 0 for values in latencies(real).values() for value in values)
    figures = real.folder / "results/tiny/figures"
    assert (figures / "server_latency.pdf").read_bytes().startswith(b"%PDF")
    assert (figures / "server_latency.png").read_bytes().startswith(b"\x89PNG")

    assert "Nothing to be done" in real.snakemake("figures").stdout

    records = {path.name: path.read_bytes() for path in real.raw.glob("*.meta.json")}
    assert len(records) == len(real.plan())
    override(real, max_new_tokens=24)
    done = real.snakemake("figures")
    assert done.returncode == 0, done.stdout
    assert f"missing: {len(records)}" in real.snakemake("status").stdout, "old records passed as current"
    assert {path.name: path.read_bytes() for path in real.raw.glob("*.meta.json")} == records

    # The same names with another fingerprint: the old records are kept aside.
    real.edit(
        "platforms/tiny.yaml", lambda data: data["overrides"]["server_gpu"].update(max_new_tokens=32, num_repeats=1)
    )
    assert f"superseded: {len(records)}" in real.snakemake("status").stdout
    done = real.snakemake("server_gpu_experiments", timeout=300)
    assert done.returncode == 0, done.stdout
    kept = [path.read_bytes() for path in real.raw.glob("superseded/*.meta.json")]
    assert sorted(kept) == sorted(records.values())
    assert f"done: {len(records)}" in real.snakemake("status").stdout
    assert not real.network_log.exists(), real.network_log.read_text()
