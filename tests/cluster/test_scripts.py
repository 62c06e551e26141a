"""The scripts that are sent to hosts, run by a bare interpreter here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import link

REPOSITORY = Path(__file__).parents[2]


def script(name: str, *arguments: str, **environment: str) -> Any:
    """What one of the scripts prints, sent to a bare interpreter as it is to hosts."""
    with open(REPOSITORY / "cluster" / name, encoding="utf-8") as source:
        words = [sys.executable, "-I", "-", *arguments]
        done = subprocess.run(words, stdin=source, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fake(folder: Path, name: str, body: str) -> None:
    """A program of that name."""
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


class TestProbe:
    def test_tells_what_is_there(self, tmp_path: Path) -> None:
        request = {"folders": [str(tmp_path / "not/yet")], "programs": ["sh", "no-such-program"]}
        found = script("probe.py", json.dumps(request))
        assert found["free_disk"][str(tmp_path / "not/yet")] > 0
        assert found["programs"]["sh"].endswith("/sh") and found["programs"]["no-such-program"] is None
        assert found["memory"]["total"] >= found["memory"]["available"] > 0
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))

    def test_says_null_where_nothing_is(self, tmp_path: Path) -> None:
        for name in ("ip", "nvidia-smi", "sudo", "dpkg-query"):
            fake(tmp_path, name, "exit 9")
        found = script("probe.py", '{"packages": ["rsync"]}', PATH=str(tmp_path))
        assert (found["interfaces"], found["gpus"], found["cuda"], found["sudo"]) == (None, None, None, False)
        assert found["missing_packages"] == ["rsync"]

    def test_reads_nvidia_smi(self, tmp_path: Path) -> None:
        rows = "echo '0, NVIDIA A10G, 23028, 550.1'; echo '1, NVIDIA A10G, [N/A], 550.1'"
        body = f'if [ $# -gt 0 ]; then {rows}; else echo "| NVIDIA-SMI 550.1   CUDA Version: 12.4  |"; fi'
        fake(tmp_path, "nvidia-smi", body)
        found = script("probe.py", PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert found["cuda"] == "12.4"
        assert [gpu["memory_mib"] for gpu in found["gpus"]] == [23028, None]
        assert {gpu["name"] for gpu in found["gpus"]} == {"NVIDIA A10G"}

    def test_the_environment_is_told_with_and_without_imports(self) -> None:
        found = script("environment_probe.py")
        assert found["versions"]["pyyaml"] and "torch" not in found
        assert script("environment_probe.py", "import")["import_errors"] == {}

    def test_a_broken_installation_is_told(self, tmp_path: Path) -> None:
        words = [sys.executable, "-S", "-I", "-", "import"]  # without site-packages
        with open(REPOSITORY / "cluster/environment_probe.py", encoding="utf-8") as source:
            done = subprocess.run(words, stdin=source, capture_output=True, text=True)
        assert "No module named 'torch'" in json.loads(done.stdout)["import_errors"]["torch"]


class TestLinkEnds:
    @pytest.fixture
    def server(self) -> Iterator[subprocess.Popen[str]]:
        words = [sys.executable, "-I", "-c", link.SOURCE, "serve", "127.0.0.1"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield process
            process.kill()

    def test_measure_and_end_with_their_stdin(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None and server.stdin is not None
        port = server.stdout.readline().strip()
        found = script("link_ends.py", "measure", "127.0.0.1", "127.0.0.1", port)
        assert 1 < found["round_trip_us"] < 100_000
        assert found["mb_per_s"] > 1
        server.stdin.close()
        assert server.wait(5) == 0

    def test_a_closed_port_is_an_error_not_a_traceback(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        server.kill()
        server.wait()
        assert "refused" in script("link_ends.py", "measure", "127.0.0.1", "127.0.0.1", port)["error"]


def append(home: Path, how: str, *lines: str) -> str:
    """append_lines.py as it runs on hosts."""
    with open(REPOSITORY / "cluster/append_lines.py", encoding="utf-8") as source:
        words = [sys.executable, "-I", "-", how, ".ssh/authorized_keys", *lines]
        done = subprocess.run(words, stdin=source, capture_output=True, text=True, env=os.environ | {"HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestAppendLines:
    def test_looking_changes_nothing(self, tmp_path: Path) -> None:
        assert append(tmp_path, "look", "a") == '{"missing": ["a"]}'
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_stays_and_nothing_is_added_twice(self, tmp_path: Path) -> None:
        file = tmp_path / ".ssh/authorized_keys"
        append(tmp_path, "append", "a key")
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        file.write_text("mine, without an end of line")
        append(tmp_path, "append", "a key", "b key")
        append(tmp_path, "append", "b key")
        assert file.read_text() == "mine, without an end of line\na key\nb key\n"
        assert append(tmp_path, "look", "a key", "b key") == '{"missing": []}'
