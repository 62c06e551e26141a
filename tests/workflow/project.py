"""A small copy of the project in which the workflow can really be called, on a platform that costs next to nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.tests.offline.sitecustomize import CONNECTIONS

REPOSITORY = Path(__file__).parents[2]
MODELS = REPOSITORY / "models/embedded/llama"
LEFT_OUT = ("offloading", "parallel_decoding", "rank_success", "sampling", "tree_width", "tree_width_latency")
"""Experiments that the tiny platform has not."""
NUM_PROMPTS, NUM_REPEATS = 4, 2
"""Of the ``real`` fixture."""
LINKED = (
    *("Snakefile", "rules", "profiles", "envs"),
    *("engine", "cluster", "benchmarks", "data_parsing", "figures", "claims", "report", "model_store", "paper"),
)
LINKED_PROGRAMS = ("basic_test.py", "download_models.py", "CITATION.cff")


@dataclass(frozen=True)
class Project:
    """A folder that holds everything `snakemake` needs; its configuration and its results may be changed freely."""

    folder: Path

    @property
    def python(self) -> str:
        """The interpreter to run Snakemake with: the project's own where a test has put one there."""
        own = self.folder / "venv/bin/python"
        return str(own) if own.exists() else sys.executable

    def snakemake(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """Call Snakemake as a user would and hand back what it printed, stderr in stdout."""
        return subprocess.run(
            [self.python, "-m", "snakemake", *arguments],
            cwd=self.folder,
            env=os.environ | self.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Python programs refuse and note attempts to reach the network; locks are the project's own."""
        return {
            "PYTHONPATH": str(REPOSITORY / "engine/tests/offline"),
            CONNECTIONS: str(self.network_log),
            "TMPDIR": str(self.folder / "tmp"),
        }

    @property
    def network_log(self) -> Path:
        """Attempts to reach the network; not there if there was none."""
        return self.folder / "network.log"

    def edit(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a file of config/ in place."""
        path = self.folder / "config" / name
        data = yaml.safe_load(path.read_text())
        change(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    def plan(self, experiment: str = "server_gpu") -> list[dict[str, Any]]:
        """An experiment's plan as the last call wrote it."""
        path = self.folder / f"results/tiny/plan/{experiment}.json"
        rows: list[dict[str, Any]] = json.loads(path.read_text())["scenarios"]
        return rows

    @property
    def raw(self) -> Path:
        """Where the records are."""
        return self.folder / "results/tiny/raw"

    def write_record(self, row: dict[str, Any], **changes: Any) -> Path:
        """A record as far as the workflow looks at it: complete, or what ``changes`` make of it."""
        self.raw.mkdir(parents=True, exist_ok=True)
        meta = {"scenario": row["scenario"], "fingerprint": row["fingerprint"], "status": "ok", "num_rows": 1} | changes
        (self.raw / f"{row['scenario']}.jsonl").write_text("{}\n")
        path = self.raw / f"{row['scenario']}.meta.json"
        path.write_text(json.dumps(meta))
        return path


def cpu_seconds() -> float:
    """CPU time of all programs called so far: what a call costs, whatever else runs on the machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def jobs(output: str) -> dict[str, int]:
    """The table of jobs that a dry run ends with."""
    table = re.findall(r"^(\w+) +(\d+)$", output[output.index("Job stats:") :], re.MULTILINE)
    return {name: int(count) for name, count in table if name != "total"}


def tiny_platform() -> dict[str, Any]:
    """One model size, two batch sizes, few tokens; the models are those of ``fake_models`` until a test changes it."""
    return {
        "description": "for tests",
        "num_nodes": 1,
        "devices_per_node": 1,
        "device": "cpu",
        "dtype": "float32",
        "num_threads": None,
        "cache_fraction": 0.25,
        "max_sequence_length": 256,
        "max_tree_nodes": 64,
        "sizes": {"small": {"target": {"path": "models/target"}, "drafts": [{"path": "models/draft"}]}},
        "prompts": {"chatgpt": "prompts/few.json"},
        "overrides": {
            "server_gpu": {"sizes": ["small"], "batch_sizes": [1, 2], "num_prompts": 2},
            **{experiment: {"sizes": []} for experiment in LEFT_OUT},
        },
    }
