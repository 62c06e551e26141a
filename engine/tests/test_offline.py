"""No command of the default run reaches for the network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.tests.conftest import ROOT
from engine.tests.jobs import ENGINE, JobFolder
from engine.tests.offline.sitecustomize import CONNECTIONS

GUARD = Path(__file__).parent / "offline"
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5); print('in')"


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, str]:
    """An environment in which every attempt to connect is refused and written down."""
    path = os.pathsep.join([str(GUARD), str(ENGINE)])
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return plain | {"PYTHONPATH": path, CONNECTIONS: str(tmp_path / "connections.txt"), "HOME": str(tmp_path)}


def attempts(environment: dict[str, str]) -> str:
    """What was written down."""
    path = Path(environment[CONNECTIONS])
    return path.read_text() if path.exists() else ""


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)


def test_guard_lets_nothing_through_and_its_absence_does(guarded: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        refused = python(guarded, "-c", CONNECT, port)
        unguarded = python(guarded | {"PYTHONPATH": str(ENGINE)}, "-c", CONNECT, port)
    assert refused.returncode != 0
    assert "the network is off limits here" in refused.stderr
    assert attempts(guarded).splitlines()[0] == "look-up 127.0.0.1"
    assert unguarded.stdout == "in\n"


def test_guard_writes_down_what_a_library_swallows(guarded: dict[str, str]) -> None:
    swallowing = "import socket\ntry: socket.socket().connect(('10.0.0.1', 80))\nexcept OSError: pass"
    assert python(guarded, "-c", swallowing).returncode == 0
    assert attempts(guarded) == "connect ('10.0.0.1', 80)\n"


def test_tests_themselves_cannot_connect() -> None:
    with pytest.raises(OSError, match="off limits"):
        socket.create_connection(("127.0.0.1", 9))


def test_run_as_a_process_connects_nowhere_and_talks_on_stderr_only(job: JobFolder, guarded: dict[str, str]) -> None:
    done = python(guarded | {"TMPDIR": str(job.root / "tmp")}, "-m", "treespec", *job.write())
    assert done.returncode == 0, done.stderr
    assert job.complete() == job.names
    assert attempts(guarded) == ""
    assert done.stdout == ""
    assert all(line.startswith("treespec: ") for line in done.stderr.splitlines())


@pytest.mark.slow  # half a minute: every mode of the shipped pair, nothing shortened
def test_basic_test_passes_on_the_shipped_pair_and_connects_nowhere(guarded: dict[str, str], tmp_path: Path) -> None:
    done = python(guarded, "basic_test.py", "--output-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Test passed!"
    assert all(check["holds"] for check in json.loads((tmp_path / "report.json").read_text()))
    assert attempts(guarded) == ""


def test_models_are_verified_without_the_network(guarded: dict[str, str]) -> None:
    done = python(guarded, "download_models.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert attempts(guarded) == ""
