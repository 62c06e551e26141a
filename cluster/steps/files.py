"""What is copied to the hosts, or found on a file system that they share: wheels, prompts, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cluster.errors import ClusterError
from cluster.facts import read_listing
from cluster.listing import listing
from cluster.ssh import Connection, rsync
from cluster.steps.step import SHORT_S

# Paths stay as they are named here; a link is copied as what it leads to, on the way to a file and at its end.
RSYNC_OPTIONS = ("--relative", "--no-implied-dirs", "--copy-links")


class CopiedFiles:
    """Files and folders of this machine, by rsync: the same path below a folder of the host as below ``root`` here."""

    def __init__(self, name: str, root: Path, paths: Sequence[str], target: str) -> None:
        self.name = name
        self._root, self._paths, self._target = root, paths, target

    def is_done(self, connection: Connection) -> bool:
        wanted = listing(str(self._root), self._paths)
        there = read_listing(connection, self._folder(connection), self._paths)
        return all(there.get(path) == file for path, file in wanted.items()) and not self._leads_away(connection)

    def apply(self, connection: Connection) -> None:
        for folder in self._leads_away(connection):
            connection.run(["rm", "--", folder], timeout_s=SHORT_S)  # the link, never what it leads to
        if self._paths:
            # rsync keeps the part of a path that follows "/./".
            sources = [f"{self._root}/./{path}" for path in self._paths]
            rsync(connection, sources, f"{self._folder(connection)}/", options=RSYNC_OPTIONS)

    def _folder(self, connection: Connection) -> PurePosixPath:
        return connection.cluster.work_dir_of(connection.host) / self._target

    def _leads_away(self, connection: Connection) -> list[str]:
        """Links where folders belong: what is copied must not land on a shared file system."""
        tops = [str(self._folder(connection) / top) for top in sorted({path.split("/")[0] for path in self._paths})]
        words = ["find", *tops, "-maxdepth", "0", "-type", "l"]
        return connection.try_run(words, timeout_s=SHORT_S).stdout.splitlines() if tops else []


class SharedModels:
    """``project/models`` as a link to the models of a file system that all hosts share."""

    name = "models"

    def __init__(self, shared_dir: PurePosixPath, models: Sequence[str]) -> None:
        self._shared_dir, self._models = shared_dir, models

    def is_done(self, connection: Connection) -> bool:
        self._require_models(connection)
        done = connection.try_run(["readlink", self._link(connection)], timeout_s=SHORT_S)
        return done.stdout.strip() == str(self._shared_dir / "models")

    def apply(self, connection: Connection) -> None:
        link = self._link(connection)
        words = ["ln", "-sfnT", "--", str(self._shared_dir / "models"), link]
        done = connection.try_run(words, timeout_s=SHORT_S)
        if done.status != 0:
            raise ClusterError(
                "the shared models cannot be linked",
                where=connection.name,
                received=done.last_words,
                fix=f"if it is a folder of copied models: rm -r {link}",
            )

    def _link(self, connection: Connection) -> str:
        return str(connection.cluster.work_dir_of(connection.host) / "project/models")

    def _require_models(self, connection: Connection) -> None:
        there = read_listing(connection, self._shared_dir, self._models)
        for model in self._models:
            wanted = {path: file[0] for path, file in listing(".", [model]).items()}
            if lacking := [path for path, size in wanted.items() if there.get(path, [None])[0] != size]:
                raise ClusterError(
                    f"the shared folder lacks {lacking[0]}, or holds it in another size",
                    where=connection.name,
                    received=str(self._shared_dir),
                    fix=f"copy {model} there, or remove shared_dir from cluster.yaml",
                )
