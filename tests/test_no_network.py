"""The guard that watches all other tests: it lets this machine through and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "registry.invalid"])
def test_another_machine_is_refused(host: str) -> None:
    with pytest.raises(PermissionError, match="network access attempted"):
        socket.create_connection((host, 80), timeout=0.1)


def test_this_machine_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()


def test_programs_are_watched_too(tmp_path: Path) -> None:
    log = tmp_path / "network.log"
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), timeout=0.1)\nexcept OSError: pass"
    environment = {"PYTHONPATH": str(Path(__file__).parent / "no_network"), "TREESPEC_NETWORK_LOG": str(log)}
    subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=True)
    assert "192.0.2.1" in log.read_text()
