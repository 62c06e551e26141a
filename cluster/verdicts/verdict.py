"""A verdict, and the facts that verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.facts import HostFacts, Situation
from cluster.hosts import Host

GIB = 1024**3
PROVISION = "python -m cluster provision"


@dataclass(frozen=True)
class Verdict:
    """``ok`` is None where it could not be judged."""

    ok: bool | None
    detail: str
    fix: str = ""


def passed(detail: str) -> Verdict:
    """As it has to be."""
    return Verdict(True, detail)  # noqa: FBT003 - the first field's name is the class's


def failed(detail: str, fix: str) -> Verdict:
    """Not as it has to be."""
    return Verdict(False, detail, fix)  # noqa: FBT003


def machine_of(situation: Situation, host: Host) -> Mapping[str, Any]:
    machine = situation.hosts[host].machine
    assert machine is not None, "the check needs python"
    return machine


def environment_of(situation: Situation, host: Host) -> Mapping[str, Any]:
    environment = situation.hosts[host].environment
    assert environment is not None, "the check needs environment"
    return environment


def first_with(situation: Situation, what: str) -> tuple[Host, HostFacts]:
    """The first host of which this is known: what the others are compared with."""
    return next((host, facts) for host, facts in situation.hosts.items() if getattr(facts, what))


def absent_files(situation: Situation, host: Host) -> dict[str, Any]:
    """Files of the models that the host lacks or holds in another size."""
    there = situation.hosts[host].project or {}
    return {
        path: wanted
        for files in situation.models.values()
        for path, wanted in files.items()
        if path not in there or there[path][0] != wanted[0]
    }
