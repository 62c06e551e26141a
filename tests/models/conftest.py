"""A hub on this machine with the models of an experiment in small, and the command that fetches them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from model_store.cli import main
from tests.models.hub_server import HubServer, serving
from tests.models.repositories import tiny_repositories

REPOSITORY = Path(__file__).parents[2]
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass
class Download:
    """download_models.py with folders of its own."""

    root: Path
    capsys: pytest.CaptureFixture[str]
    environment: dict[str, str]
    waits: list[float] = field(default_factory=list)
    out: str = ""
    err: str = ""

    @property
    def cache(self) -> Path:
        """The cache folder."""
        return self.root / "hub"

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.root / "hub.lock.json"

    def arguments(self, *arguments: str) -> list[str]:
        """As on the command line."""
        own = ["--lock-file", str(self.lock), "--catalogue", str(REPOSITORY / "config/models.yaml")]
        if "--platform" not in arguments:
            own += ["--cache-folder", str(self.cache)]
        return [*own, *arguments]

    def run(self, *arguments: str) -> int:
        """In this process; ``out`` and ``err`` hold what it said."""
        self.capsys.readouterr()
        status = main(self.arguments(*arguments))
        self.out, self.err = self.capsys.readouterr()
        return status

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """As a process of its own."""
        command = [sys.executable, str(REPOSITORY / "download_models.py"), *self.arguments(*arguments)]
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=self.environment | environment, text=True, stdout=-1, stderr=-1
        )


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub of tiny models."""
    with serving(HubServer(tiny_repositories())) as server:
        yield server


@pytest.fixture
def download(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Download:
    """No proxy, no token, nothing of this machine's own cache; waiting takes no time and is written down."""
    for name in os.environ:
        if name.lower() in PROXIES or name.startswith(("HF_", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "home/token"))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY / "engine"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",  # a server that is held up is not to be given up
    }
    made = Download(tmp_path, capsys, environment)
    for module in ("hub", "fetch"):
        monkeypatch.setattr(f"model_store.{module}.sleep", made.waits.append)
    return made
