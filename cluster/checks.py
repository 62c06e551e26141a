"""The checks of a cluster: one table of them, one mechanism, one report."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.facts import Situation, gather, models_here
from cluster.hosts import Host, load_cluster
from cluster.verdicts import access, machine, network, software
from cluster.verdicts.verdict import Verdict, failed

MIN_MB_PER_S = 10.0  # below that of an Ethernet of 100 Mbit/s
WORDS = {True: "ok", False: "FAILED", None: "not checked"}


@dataclass(frozen=True)
class Check:
    """What is judged of every host, and the checks that have to pass before it makes sense."""

    name: str
    verdict: Callable[[Situation, Host], Verdict]
    needs: tuple[str, ...] = ()


CHECKS = (
    Check("reachable", access.reachable),
    Check("host key", access.host_key, ("reachable",)),
    Check("login", access.login, ("host key",)),
    Check("answers", access.answers, ("login",)),
    Check("clock", access.clock, ("answers",)),
    Check("python", software.python, ("answers",)),
    Check("sudo", software.sudo, ("python",)),
    Check("packages", software.packages, ("python",)),
    Check("programs", software.programs, ("python",)),
    Check("gpus", machine.gpus, ("python",)),
    Check("memory", machine.memory, ("python",)),
    Check("disk", machine.disk, ("python",)),
    Check("limits", machine.limits, ("python",)),
    Check("name resolution", network.name_resolution, ("python",)),
    Check("interface", network.interface, ("python",)),
    Check("reaches others", network.reaches_others, ("interface",)),
    Check("speed", network.speed, ("reaches others",)),
    Check("environment", software.environment, ("python",)),
    Check("same versions", software.same_versions, ("environment",)),
    Check("nccl", software.nccl, ("environment",)),
    Check("project", software.project, ("python",)),
    Check("models", software.models, ("project",)),
)


@dataclass(frozen=True)
class Row:
    """One check of one host."""

    host: str
    name: str
    ok: bool | None
    detail: str
    fix: str


def judge(situation: Situation) -> list[Row]:
    """All checks of all hosts; what a failed check makes meaningless is not checked."""
    return [
        Row(host.host, name, verdict.ok, verdict.detail, verdict.fix)
        for host in situation.cluster.hosts
        for name, verdict in _judged(situation, host).items()
    ]


def _judged(situation: Situation, host: Host) -> dict[str, Verdict]:
    failure = situation.hosts[host].failure
    judged: dict[str, Verdict] = {}
    for check in CHECKS:
        unmet = next((name for name in check.needs if judged[name].ok is not True), None)
        if unmet is not None:
            before = judged[unmet]
            judged[check.name] = Verdict(None, before.detail if before.ok is None else f"{unmet} failed")
        elif failure is not None and failure.check == check.name:
            judged[check.name] = failed(failure.what, failure.fix)
        else:
            judged[check.name] = check.verdict(situation, host)
    return judged


def table(rows: Sequence[Row]) -> str:
    """Aligned columns: host, name, ok, detail; what to do stands below, where there is something to do."""
    cells = [("host", "check", "", "found")] + [(row.host, row.name, WORDS[row.ok], row.detail) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    lines = []
    for cell, fix in zip(cells, ["", *(row.fix for row in rows)], strict=True):
        start = "  ".join(text.ljust(width) for text, width in zip(cell[:3], widths, strict=True))
        lines.append(f"{start}  {cell[3]}")
        if fix:
            lines.append(f"{' ' * len(start)}  fix: {fix}")
    return "\n".join(lines)


def write_report(path: Path, situation: Situation, rows: Sequence[Row]) -> None:
    """Everything that was found, as JSON. Raises ClusterError."""
    report = {
        "ok": all(row.ok is True for row in rows),
        "checks": [asdict(row) for row in rows],
        "hosts": [{"host": host.host, **asdict(facts)} for host, facts in situation.hosts.items()],
        "links": [
            {"from": source.host, "to": target.host, **asdict(link)}
            for (source, target), link in situation.links.items()
        ],
    }
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ClusterError("report cannot be written", where=str(path), received=error.strerror) from error


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command."""
    check = commands.add_parser("check", help="look whether the hosts are what runs need")
    check.add_argument("--cluster", type=Path, required=True, help="cluster.yaml")
    check.add_argument("--models", type=Path, nargs="+", default=[], help="folders of the models that will be served")
    check.add_argument("--output", type=Path, help="report as JSON, also when a check fails")
    check.add_argument("--min-mb-per-s", type=float, default=MIN_MB_PER_S, help="bandwidth between any two hosts")
    check.set_defaults(command=_check)


def _check(args: argparse.Namespace) -> int:
    situation = gather(load_cluster(args.cluster), models_here(args.models), args.min_mb_per_s)
    rows = judge(situation)
    print(table(rows))
    if args.output is not None:
        write_report(args.output, situation, rows)
    num_failed = sum(row.ok is False for row in rows)
    print(f"{num_failed} of {len(rows)} checks failed" if num_failed else "all checks passed", file=sys.stderr)
    return 0 if all(row.ok is True for row in rows) else 1
