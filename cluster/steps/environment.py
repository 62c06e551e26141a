"""The hosts' Python environment, and the engine in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.environment_probe import ENGINE_DIGEST
from cluster.errors import ClusterError
from cluster.facts import read_json
from cluster.ssh import Connection, rsync
from cluster.steps.step import SHORT_S
from cluster.wheels import file_sha256, requirement_lines

VENV_S = 300.0
PIP_S = 3600.0
STAMP = "complete"  # written last: an environment without it is made anew
PIP_OPTIONS = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]


def pip_words(connection: Connection) -> list[str]:
    """pip of the host's environment; where wheels are copied it looks nowhere else, whatever it is set to there."""
    home = connection.cluster.work_dir_of(connection.host)
    words = ["-m", "pip", "install", *PIP_OPTIONS]
    if connection.cluster.wheels == "index":
        return [str(home / "venv/bin/python"), *words]
    offline = ["--no-index", "--find-links", str(home / "wheels")]
    return ["env", "PIP_CONFIG_FILE=/dev/null", str(home / "venv/bin/python"), *words, *offline]


def installed(connection: Connection) -> dict[str, Any] | None:
    """What environment_probe.py tells without importing anything; None where no environment answers."""
    python = str(connection.cluster.work_dir_of(connection.host) / "venv/bin/python")
    if connection.try_run([python, "-c", ""], timeout_s=SHORT_S).status != 0:
        return None
    return read_json(connection, python, "environment_probe.py", [], timeout_s=SHORT_S)


class Environment:
    """A virtual environment with the engine's dependencies in the given versions."""

    name = "environment"

    def __init__(self, pins: Mapping[str, str]) -> None:
        self._pins = dict(pins)

    def is_done(self, connection: Connection) -> bool:
        stamp = str(connection.cluster.work_dir_of(connection.host) / "venv" / STAMP)
        if connection.try_run(["test", "-e", stamp], timeout_s=SHORT_S).status != 0:
            return False
        found = installed(connection)
        return found is not None and all(
            _fits(found["versions"].get(name), version) for name, version in self._pins.items()
        )

    def apply(self, connection: Connection) -> None:
        venv = connection.cluster.work_dir_of(connection.host) / "venv"
        connection.run(["rm", "-rf", "--", str(venv)], timeout_s=VENV_S)
        try:
            self._make(connection, str(venv))
            connection.run(["touch", str(venv / STAMP)], timeout_s=SHORT_S)
        except ClusterError:
            if connection.is_open:
                connection.try_run(["rm", "-rf", "--", str(venv)], timeout_s=VENV_S)
            raise

    def _make(self, connection: Connection, venv: str) -> None:
        python = connection.cluster.python
        done = connection.try_run([python, "-m", "venv", venv], timeout_s=VENV_S)
        if done.status != 0:
            raise ClusterError(
                "the environment cannot be made",
                where=connection.name,
                received=f"{python} -m venv: {done.last_words}",
                fix="apt-get install python3-venv, or name another interpreter as python in cluster.yaml",
            )
        words = [*pip_words(connection), *requirement_lines(self._pins)]
        connection.run(words, timeout_s=PIP_S, what="pip install of the engine's dependencies")


def _fits(there: str | None, wanted: str) -> bool:
    """As pip sees it: without a local build's name any build of that version fits."""
    return there is not None and (there == wanted or there.partition("+")[0] == wanted)


class Engine:
    """The engine from its wheel; done where a file of the same digest was installed."""

    name = "engine"

    def __init__(self, wheel: Path) -> None:
        self._wheel = wheel
        self._sha256 = file_sha256(wheel)

    def is_done(self, connection: Connection) -> bool:
        found = installed(connection)
        return found is not None and found["engine_sha256"] == self._sha256

    def apply(self, connection: Connection) -> None:
        folder = connection.cluster.work_dir_of(connection.host) / "wheels/engine"
        rsync(connection, [str(self._wheel)], f"{folder}/")
        digest = str(connection.cluster.work_dir_of(connection.host) / "venv" / ENGINE_DIGEST)
        connection.run(["rm", "-f", "--", digest], timeout_s=SHORT_S)
        words = [*pip_words(connection), "--no-deps", "--force-reinstall", str(folder / self._wheel.name)]
        connection.run(words, timeout_s=PIP_S, what="pip install of the engine")
        connection.run(["tee", digest], timeout_s=SHORT_S, stdin=f"{self._sha256}\n")
