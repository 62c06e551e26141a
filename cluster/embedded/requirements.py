"""What this machine needs to stand for two hosts, and what is missing, with the line that brings it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

from cluster.errors import ClusterError

Kind = Literal["namespaces", "loopback"]

# The hosts use this machine's programs, so that what provisioning needs there has to be here.
PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ssh-keyscan": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "tc": "iproute2",
    "mount": "mount",
    "umount": "mount",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "unshare": "util-linux",
}
LOOPBACK_PROGRAMS = ("sshd", "ssh", "ssh-keygen", "ssh-keyscan", "rsync")
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # not on every user's PATH
NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Obstacle:
    """Why a kind of embedded cluster cannot be, and what to do about it."""

    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason} (fix: {self.fix})"


def program(name: str) -> str:
    """Where a program is, the system's own folders included. Raises ClusterError with the apt line."""
    path = _found(name)
    if path is None:
        raise ClusterError(f"{name} is not there", where="this machine", fix=_apt_line([PACKAGES.get(name, name)]))
    return path


def obstacle(kind: Kind) -> Obstacle | None:
    """What stands in the way of this kind here; None if nothing known does."""
    if kind == "namespaces" and os.geteuid() != 0:
        return Obstacle("network and mount namespaces need root", "run as root, or --kind loopback")
    names = LOOPBACK_PROGRAMS if kind == "loopback" else tuple(PACKAGES)
    missing = [name for name in names if _found(name) is None]
    packages = [PACKAGES[name] for name in missing]
    if importlib.util.find_spec("ensurepip") is None:  # some systems keep this half of venv in a package of its own
        missing.append("Python's ensurepip")
        packages.append("python3-venv")
    if missing:
        return Obstacle("not there: " + ", ".join(missing), _apt_line(packages))
    return _refused_namespaces() if kind == "namespaces" else None


def _refused_namespaces() -> Obstacle | None:
    words = [program("unshare"), *NAMESPACES, "--fork", "--kill-child", "true"]
    probe = subprocess.run(words, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    if probe.returncode == 0:
        return None
    return Obstacle(
        f"no namespaces: {' '.join(probe.stderr.split())}", "a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN"
    )


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}")


def _apt_line(packages: list[str]) -> str:
    return "apt-get install " + " ".join(sorted(set(packages)))
