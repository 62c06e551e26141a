"""Writes into a wheel which commit it was built from: the hosts that install it have no checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMMIT_FILE = ".commit"


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """Used for wheels only; an editable install has its checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        command = ["git", "-C", self.root, "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:  # no git: the file then says that nobody knows
            commit = ""
        self._file.write_text(f"{commit or 'unknown'}\n", encoding="utf-8")
        build_data["force_include"][str(self._file)] = "treespec/commit.txt"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return Path(self.directory) / COMMIT_FILE
