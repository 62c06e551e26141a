"""Writes a results folder as the other stages leave it, with made-up content."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from figures.drawing.io import save_figure

CLAIM_COLUMNS = ("id", "source", "statement", "published", "measured", "interval", "n", "verdict", "why")
CLAIMS = (
    ("C1", "figure 7", "the tokens are the same", "1.0", "1.0", "", "320", "REPRODUCED", "every prompt"),
    ("C4", "figure 7", "trees beat sequences", "1.2-1.5", "0.83", "0.7-0.95", "32", "NOT REPRODUCED", "below 1"),
    ("C9", "table 2", "wider trees hold more", "", "", "", "", "NOT TESTABLE HERE", "no records of tree_width"),
)
DONE, FAILED = "server_small-1_batchsize-tree_specinfer", "server_small-2_batchsize-tree_specinfer"
CAPTION = "Bars: 1.5× over incremental. <b>3 of 4</b> planned scenarios are drawn."


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_figure(results: Path, name: str) -> None:
    """A figure as the gallery writes it, PDF and PNG, with its caption in the latter."""
    with mpl.rc_context({"figure.dpi": 50}):
        figure = Figure(figsize=(3, 2))
        figure.add_subplot().plot([1, 2, 3])
        figure.text(0, 0, CAPTION)
        save_figure(figure, results / "figures", name)


def write_record(results: Path, scenario: str, **environment: Any) -> None:
    """The four files of a record, as far as a report looks at them."""
    raw = results / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    target = {"label": "embedded LLaMA target", "description": "embedded LLaMA target, inflated to 105M parameters"}
    meta = {
        "scenario": scenario,
        "status": "ok",
        "environment": {"commit": "0123456789ab", "cpu": "Example CPU", "treespec": "0.1.0"} | environment,
        "models": {"target": target | {"num_parameters": 105300000, "sha256": "ab" * 32}, "drafts": []},
        "config": {"placement": {"dtype": "float32", "target": {"path": "models/embedded/llama/target"}}},
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:06+00:00",
    }
    (raw / f"{scenario}.meta.json").write_text(json.dumps(meta))
    for suffix in (".jsonl", ".txt", ".out"):
        (raw / f"{scenario}{suffix}").write_text("{}\n")


def write_results(results: Path, label: str = "LLaMA target", figures: Sequence[str] = ("server_latency",)) -> Path:
    """A results folder with one record of two, two figures' worth of files, verdicts, a plan and a platform."""
    columns = ("scenario", "experiment", "status", "target", "speedup", "draft", "detail")
    rows = [
        (DONE, "server_gpu", "ok", label, "1.9", "", ""),
        (FAILED, "server_gpu", "failed", label, "", "", "out of memory"),
        ("tree_width_small-width_3", "tree_width", "missing", label, "", "", ""),
    ]
    write_csv(results / "csv/server.csv", columns, rows)
    write_csv(results / "csv/requests.csv", ("scenario", "latency_ms"), [(DONE, str(n)) for n in range(1000)])
    write_csv(results / "claims.csv", CLAIM_COLUMNS, CLAIMS)
    for name in figures:
        write_figure(results, name)
    write_record(results, DONE)
    (results / "plan").mkdir()
    (results / "plan/server_gpu.json").write_text('{"table": "server", "scenarios": []}')
    (results / "platform.yaml").write_text("description: made up for tests\n")
    for name in ("jobs/a.yaml", "raw/superseded/a.01234567.meta.json", "audit/losslessness.json", "machine.json"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text("{}\n")
    (results / "raw/.lock").write_text("held")
    return results


def write_config(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """A folder of configuration files."""
    chosen = {"config.yaml": "platform: made_up\n", "experiments/server_gpu.yaml": "prefix: server\n"} | dict(
        files or {}
    )
    for name, text in chosen.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
