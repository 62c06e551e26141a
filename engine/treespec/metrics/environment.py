"""What a record says of the machine and the code that made it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import numpy

import treespec


def code_commit() -> str:
    """The commit of the running code, ``-dirty`` with local changes.

    TREESPEC_COMMIT stands in for a checkout, and so does what the wheel says of itself.
    """
    package = Path(treespec.__file__).parent
    given = os.environ.get("TREESPEC_COMMIT")
    if given:
        return given
    if (said := package / "commit.txt").is_file():
        return said.read_text(encoding="utf-8").strip()
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_environment(torch_version: str, device: str, num_threads: int) -> dict[str, object]:
    """Versions and hardware; torch is passed in, so that this room stays torch-free."""
    return {
        "commit": code_commit(),
        "device": device,
        "cpu": cpu_model(),
        "num_cores": len(os.sched_getaffinity(0)),
        "num_threads": num_threads,
        "python": platform.python_version(),
        "torch": torch_version,
        "numpy": numpy.__version__,
        "treespec": treespec.__version__,
        "platform": platform.platform(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }
