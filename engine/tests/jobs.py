"""Job files over tiny models, ``treespec run`` in this process and in its own, and a look at what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import treespec
from treespec import cli
from treespec.config import fingerprints, load_run_config
from treespec.metrics.records import SUFFIXES, RecordFolder

MODES: dict[str, tuple[int, ...]] = {"incremental": (), "sequence": (1, 1, 1), "tree": (2, 2, 1)}
ENGINE = Path(treespec.__file__).parents[1]


@dataclass
class JobFolder:
    """A folder with prompts, a job file and a place for results; change ``placement`` and ``scenarios`` freely."""

    root: Path
    placement: dict[str, Any]
    scenarios: list[dict[str, Any]]
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path, target: Path, draft: Path, prompts: Sequence[str]) -> JobFolder:
        """One scenario per mode, two prompts at a time."""
        (root / "prompts.json").write_text(json.dumps(list(prompts)), encoding="utf-8")
        (root / "tmp").mkdir()
        placement = {
            "name": "tiny",
            "target": {"path": str(target)},
            "drafts": [{"path": str(draft)}],
            "max_sequence_length": 64,
            "num_threads": 1,
        }
        scenarios = [
            {
                "name": f"server_small-2_batchsize-{mode}",
                "mode": mode,
                "expansion": list(expansion),
                "prompts": str(root / "prompts.json"),
                "max_requests_per_batch": 2,
                "max_new_tokens": 12,
                "ignore_eos": True,
                "num_repeats": 2,
            }
            for mode, expansion in MODES.items()
        ]
        return cls(root, placement, scenarios)

    @property
    def config_file(self) -> Path:
        """The job file."""
        return self.root / "job.json"

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.root / "raw"

    @property
    def names(self) -> list[str]:
        """Scenario names."""
        return [scenario["name"] for scenario in self.scenarios]

    def change(self, **settings: Any) -> None:
        """Set something in every scenario."""
        for scenario in self.scenarios:
            scenario.update(settings)

    def write(self) -> list[str]:
        """Write the job file; the arguments of ``treespec`` that run it."""
        job = {"placement": self.placement, "scenarios": self.scenarios}
        self.config_file.write_text(json.dumps(job), encoding="utf-8")
        return ["run", "--config", str(self.config_file), "--output-dir", str(self.results)]

    def run(self) -> int:
        """Run the job in this process; the exit status."""
        return cli.main(self.write())

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Run the job in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "treespec", *self.write(), *options],
            env=self.subprocess_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def subprocess_environment(self) -> dict[str, str]:
        """Locks of this test's own, and the engine that is being tested."""
        return os.environ | {"PYTHONPATH": str(ENGINE), "TMPDIR": str(self.root / "tmp")} | self.environment

    def meta(self, scenario: str) -> dict[str, Any]:
        """The scenario's meta file."""
        return json.loads((self.results / f"{scenario}.meta.json").read_text(encoding="utf-8"))

    def rows(self, scenario: str) -> list[dict[str, Any]]:
        """The scenario's rows."""
        lines = (self.results / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def complete(self) -> list[str]:
        """Scenarios that have a current, whole record, as the next run sees it."""
        self.write()
        prints, folder = fingerprints(load_run_config(self.config_file)), RecordFolder(self.results)
        return [name for name in self.names if folder.is_complete(name, prints[name])]

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Every record file: when it was written and what it holds."""
        files = sorted(p for p in self.results.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
        return {str(p.relative_to(self.results)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def use_own_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test neither waits for a measurement on this machine nor holds one up."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
