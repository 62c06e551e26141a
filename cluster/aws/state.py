"""What was launched, written down before anything is: a process that is killed leaves at least this behind."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import ClusterError


class LaunchState(BaseModel):
    """A launch that has not been terminated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    launch: str
    region: str
    account: str
    started_at: datetime
    cluster_file: Path
    # Instances that may exist: 0 until AWS is asked for them, whatever it answers.
    num_asked: int = 0
    instance_ids: tuple[str, ...] = ()


def state_file_of(settings_file: Path) -> Path:
    """Beside the settings: whoever has those finds it."""
    return settings_file.with_suffix(".state.json")


def read_state(path: Path) -> LaunchState | None:
    """The launch that is written down, if any. Raises ClusterError where the file is damaged."""
    try:
        return LaunchState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ClusterError(
            "the launch's state cannot be read",
            where=str(path),
            received=" ".join(str(error).split()),
            fix="move it away; what bears the name is found by its tags",
        ) from error


def begin_state(path: Path, state: LaunchState) -> None:
    """Write the state of a new launch. Raises ClusterError where another launch has got ahead."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(state.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ClusterError("the launch's state cannot be written", where=str(path), received=error.strerror) from error


def write_state(path: Path, state: LaunchState) -> LaunchState:
    """Replace the state, whole or not at all; returns it. Raises ClusterError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ClusterError("the launch's state cannot be written", where=str(path), received=error.strerror) from error
    return state
