"""A cluster run as a user starts it, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.embedded.testbed import EmbeddedCluster

REPOSITORY = Path(__file__).parents[2]
PROMPTS = "prompts/mixed.json"
MODELS = ("models/embedded/llama/target", "models/embedded/llama/draft")
BOUND_S = 60.0  # every failure is told within this


def scenario(name: str, **changes: Any) -> dict[str, Any]:
    """Incremental decoding of two prompts in a batch of two."""
    common = {"prompts": PROMPTS, "num_prompts": 2, "max_new_tokens": 16, "ignore_eos": True}
    return {"name": name, "mode": "incremental", "max_requests_per_batch": 2} | common | changes


def tree(name: str, **changes: Any) -> dict[str, Any]:
    """Tree speculation on the same."""
    return scenario(name, mode="tree", expansion=[1, 1, 3, 1], **changes)


@dataclass
class ClusterRun:
    """A job on the embedded cluster; ``slots`` ranks at most on each host."""

    folder: Path
    hosts: EmbeddedCluster
    scenarios: list[dict[str, Any]]
    tensor: int = 1
    pipeline: int = 2
    slots: int = 1
    placement: dict[str, Any] = field(default_factory=dict)
    cluster_changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = self.folder / "raw"
        self.lines: list[str] = []

    @property
    def words(self) -> list[str]:
        """The command, its files written."""
        target, draft = MODELS
        degrees = {"tensor_parallel_degree": self.tensor, "pipeline_parallel_degree": self.pipeline}
        placement = {"name": "p", "target": {"path": target}, "drafts": [{"path": draft}], "num_threads": 1} | degrees
        job = {"placement": placement | self.placement, "scenarios": self.scenarios}
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))
        cluster = self.hosts.cluster.model_dump(mode="json", exclude_none=True) | self.cluster_changes
        for host in cluster["hosts"]:
            host["slots"] = self.slots
        (self.folder / "cluster.yaml").write_text(yaml.safe_dump(cluster))
        files = ["--cluster", str(self.folder / "cluster.yaml"), "--config", str(self.folder / "job.yaml")]
        ranks = ["--ranks", str(self.tensor * self.pipeline), "--output-dir", str(self.results)]
        return [sys.executable, "-m", "cluster", "run", *files, *ranks]

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        """Until a line holds the text."""
        deadline = time.monotonic() + timeout_s
        while not any(text in line for line in list(self.lines)):
            assert time.monotonic() < deadline and self.process.poll() is None, "\n".join(self.lines)
            time.sleep(0.05)

    def finish(self, timeout_s: float = 240) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            raise AssertionError("it did not end: " + "\n".join(self.lines[-30:])) from None
        self._reader.join(5)
        return status

    def run(self) -> int:
        self.start()
        return self.finish()

    def errors(self) -> list[str]:
        """What the command itself says is wrong; lines of ranks begin with their host's name."""
        return [line for line in self.lines if line.startswith("error: ")]

    def complete(self) -> list[str]:
        """Scenarios with a record, as its own meta file tells."""
        metas = [json.loads(path.read_text()) for path in sorted(self.results.glob("*.meta.json"))]
        return [meta["scenario"] for meta in metas if meta["status"] == "ok"]

    def tokens(self, name: str) -> list[list[int]]:
        rows = (self.results / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(row)["output_token_ids"] for row in rows]

    def identity(self, name: str) -> tuple[int, int]:
        """Changes when a record is written anew."""
        status = os.stat(self.results / f"{name}.meta.json")
        return status.st_ino, status.st_mtime_ns

    def ranks(self, node: int) -> list[int]:
        """The engine's processes on a host, as this machine numbers them."""
        launchers = set(self.hosts.processes(node, "torch.distributed.run"))
        return sorted(set(self.hosts.processes(node, "-m treespec run")) - launchers)

    def launchers(self, node: int) -> list[int]:
        keepers = set(self.hosts.processes(node, "keeper.py"))
        return sorted(set(self.hosts.processes(node, "torch.distributed.run")) - keepers)

    def keepers(self, node: int) -> list[int]:
        shells = set(self.hosts.processes(node, "sh -c"))
        return sorted(set(self.hosts.processes(node, "keeper.py run")) - shells)

    def leftovers(self) -> list[int]:
        """Processes of any run on any host, after a moment for those that are just ending."""
        for _ in range(40):
            left = [
                pid
                for node in (0, 1)
                for text in ("treespec run", "keeper.py")
                for pid in self.hosts.processes(node, text)
            ]
            if not left:
                return []
            time.sleep(0.1)
        return left
