"""System packages, and the folders that belong to treespec."""

from __future__ import annotations

from cluster.errors import ClusterError
from cluster.ssh import Connection
from cluster.steps.step import SHORT_S

APT_S = 900.0
APT = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
INSTALLED = "install ok installed"
FOLDERS = ("wheels", "project", "runs", "ssh")


class Packages:
    """System packages by apt-get, as root or through sudo without a password."""

    name = "packages"

    def is_done(self, connection: Connection) -> bool:
        return not self._missing(connection)

    def apply(self, connection: Connection) -> None:
        missing = self._missing(connection)
        is_root = connection.run(["id", "-u"], timeout_s=SHORT_S).strip() == "0"
        as_root = [] if is_root else ["sudo", "-n"]
        # A fresh machine has no package lists. Where they cannot be fetched, the installation tells what it lacks.
        connection.try_run([*as_root, *APT, "update"], timeout_s=APT_S)
        words = [*as_root, *APT, "install", "-y", "--no-install-recommends", *missing]
        done = connection.try_run(words, timeout_s=APT_S)
        if done.status != 0:
            raise ClusterError(
                "system packages could not be installed",
                where=connection.name,
                received=f"exit status {done.status}: {done.last_words}",
                fix=f"as root there: apt-get install {' '.join(missing)}",
            )

    def _missing(self, connection: Connection) -> list[str]:
        packages = connection.cluster.packages
        if not packages:
            return []
        words = ["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *packages]
        done = connection.try_run(words, timeout_s=SHORT_S)  # its status is 1 where one is unknown
        if done.status not in (0, 1):
            raise ClusterError(
                "system packages cannot be looked at",
                where=connection.name,
                received=done.last_words,
                fix="on a system without dpkg install rsync and Python's venv yourself, and set packages: []",
            )
        there = {line.partition(" ")[0] for line in done.stdout.splitlines() if line.endswith(INSTALLED)}
        return [package for package in packages if package not in there]


class Folders:
    """The work folder and those in it; only the login may look into ``ssh``."""

    name = "folders"

    def is_done(self, connection: Connection) -> bool:
        words = ["find", *_folders(connection), "-maxdepth", "0", "-type", "d"]
        return connection.try_run(words, timeout_s=SHORT_S).status == 0

    def apply(self, connection: Connection) -> None:
        folders = _folders(connection)
        connection.run(["mkdir", "-p", "--", *folders], timeout_s=SHORT_S, what=f"mkdir {folders[0]}")
        connection.run(["chmod", "700", "--", folders[-1]], timeout_s=SHORT_S)


def _folders(connection: Connection) -> list[str]:
    home = connection.cluster.work_dir_of(connection.host)
    return [str(home), *(str(home / name) for name in FOLDERS)]
