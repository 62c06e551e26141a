"""state.json: what an embedded cluster consists of, so that any later command can find and end it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.embedded.processes import BOOT_ID, Process
from cluster.embedded.requirements import Kind
from cluster.errors import ClusterError

STATE_FILE = "state.json"


class State(BaseModel):
    """The processes that hold everything else: with them go namespaces, mounts and links."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    boot_id: str
    disk_bytes: int
    third_byte: int | None = None  # of the hosts' network, 10.77.<third_byte>.0/24
    port: int = 22
    processes: dict[str, Process] = {}
    complete: bool = False

    @classmethod
    def new(cls, kind: Kind, disk_bytes: int) -> Self:
        """Nothing started yet."""
        return cls(kind=kind, boot_id=_boot_id(), disk_bytes=disk_bytes)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What was started in this folder; None if nothing was. Raises ClusterError on a file that is not ours."""
        path = folder / STATE_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ClusterError(
                "is not the state of an embedded cluster", where=str(path), fix="use another folder, or remove the file"
            ) from error

    def save(self, folder: Path) -> None:
        """Written whole or not at all."""
        new = folder / f"{STATE_FILE}.{os.getpid()}"
        new.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        new.replace(folder / STATE_FILE)

    def living(self) -> dict[str, Process]:
        """The recorded processes that still run; none if the machine was started anew since."""
        if self.boot_id != _boot_id():
            return {}
        return {name: process for name, process in self.processes.items() if process.is_alive}


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()
