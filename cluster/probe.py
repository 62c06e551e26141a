"""Looks at the machine it runs on and prints one JSON object; what is not there is null. Standard library only.

Sent over stdin to ``python3 -I - REQUEST``. REQUEST is a JSON object of lists: ``folders`` whose free disk is wanted,
``packages`` and ``programs`` that should be there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from typing import Any

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # a login without root's rights may lack them in its PATH
GPU_FIELDS = ("index", "name", "memory.total", "driver_version")


def said(words: list[str], timeout_s: float = 10) -> str | None:
    """The stdout of a program; None where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def found(program: str) -> str | None:
    """Where a program is."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS)))


def resolved(name: str) -> list[str] | None:
    """The addresses that a name stands for here."""
    try:
        return sorted({str(item[4][0]) for item in socket.getaddrinfo(name, None)})
    except OSError:
        return None


def interfaces() -> dict[str, list[str]] | None:
    """Interface -> addresses with their prefix lengths, such as 10.0.0.5/24."""
    text = said([found("ip") or "ip", "-json", "address"])
    if text is None:
        return None
    try:
        rows = json.loads(text)
    except ValueError:
        return None
    return {
        row["ifname"]: [f"{item['local']}/{item['prefixlen']}" for item in row.get("addr_info", ()) if "local" in item]
        for row in rows
        if "ifname" in row
    }


def gpus() -> list[dict[str, Any]] | None:
    """What nvidia-smi lists; None without it."""
    text = said(["nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits"], 30)
    if text is None:
        return None
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines() if line.strip()]
    return [
        {"index": int(index), "name": name, "memory_mib": int(memory) if memory.isdigit() else None, "driver": driver}
        for index, name, memory, driver in (row for row in rows if len(row) == len(GPU_FIELDS) and row[0].isdigit())
    ]


def cuda_version() -> str | None:
    """The newest CUDA that the driver carries, as the head of nvidia-smi says."""
    match = re.search(r"CUDA Version:\s*([0-9.]+)", said(["nvidia-smi"], 30) or "")
    return match[1] if match else None


def memory() -> dict[str, int] | None:
    """Bytes of main memory: all of it, and what programs can still have."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file if ":" in line)
        return {"total": _kib(rows["MemTotal"]), "available": _kib(rows["MemAvailable"])}
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


def free_disk(folder: str) -> int | None:
    """Free bytes where a folder is or would be made."""
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def missing_packages(names: list[str]) -> list[str] | None:
    """System packages that are not installed; None where dpkg does not rule."""
    dpkg = found("dpkg-query")
    if dpkg is None:
        return None
    wanted = "install ok installed"
    return [name for name in names if (said([dpkg, "-W", "-f=${Status}", name]) or "").strip() != wanted]


def sudo_without_password() -> bool | None:
    """Whether commands can be run as root without being asked; None without sudo."""
    return None if found("sudo") is None else said(["sudo", "-n", "true"]) is not None


def limits() -> dict[str, int | None]:
    """Open files, locked memory in bytes (-1: any), shared memory in bytes, cores that this login may use."""
    return {
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "locked_memory": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        "shared_memory": free_disk("/dev/shm") if os.path.isdir("/dev/shm") else None,
        "cores": len(os.sched_getaffinity(0)),
    }


def report(request: dict[str, list[str]]) -> dict[str, Any]:
    """Everything, for what was asked."""
    name = socket.gethostname()
    return {
        "hostname": name,
        "resolves_to": resolved(name),
        "interfaces": interfaces(),
        "gpus": gpus(),
        "cuda": cuda_version(),
        "memory": memory(),
        "free_disk": {folder: free_disk(folder) for folder in request.get("folders", ())},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "has_venv": all(importlib.util.find_spec(module) is not None for module in ("venv", "ensurepip")),
        "is_root": os.geteuid() == 0,
        "sudo": sudo_without_password(),
        "missing_packages": missing_packages(request.get("packages", [])),
        "programs": {program: found(program) for program in request.get("programs", ())},
        "limits": limits(),
    }


if __name__ == "__main__":
    json.dump(report(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}), sys.stdout)
