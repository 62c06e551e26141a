"""What remains of an embedded cluster, as seen from this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


def command(*words: str, before: Sequence[str] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, "-m", "cluster", *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return content


def pids(folder: Path) -> list[int]:
    return [process["pid"] for process in state(folder)["processes"].values()]


def interface_index(folder: Path) -> str | None:
    """The kernel gives no number twice, unlike a name."""
    byte = state(folder)["third_byte"]
    return None if byte is None else (Path(f"/sys/class/net/treespec{byte}") / "ifindex").read_text()


def namespaces_of(pid: int) -> set[str]:
    mine = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid", "uts", "ipc")}
    try:
        return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid", "uts", "ipc")} - mine
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()


def assert_nothing_is_left(
    folder: Path, namespaces: set[str] | frozenset[str] = frozenset(), index: str | None = None
) -> None:
    everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    assert not [pid for pid in everyone if namespaces_of(pid) & namespaces]
    lines = {pid: command_line(pid) for pid in everyone}
    assert not {pid: line for pid, line in lines.items() if str(folder) in line and pid != os.getpid()}
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert index is None or index not in [number(path) for path in Path("/sys/class/net").glob("treespec*/ifindex")]
    left = [path for path in folder.rglob("*") if not path.is_dir()] if folder.exists() else []
    assert [path.name for path in left if path.name != "sshd.log"] == []


def number(path: Path) -> str | None:
    """None for a device that is just being taken away: the kernel still lists its file and refuses to read it."""
    try:
        return path.read_text()
    except OSError:
        return None


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
