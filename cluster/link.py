"""Latency and bandwidth between every two hosts over their data addresses, each direction on its own."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.hosts import Host
from cluster.ssh import Connection

SOURCE = Path(__file__).with_name("link_ends.py").read_text(encoding="utf-8")
START_S = 15.0  # until a server has chosen its port
PAIR_S = 20.0  # no pair takes longer
TOTAL_S = 120.0  # pairs that would start later are not measured


@dataclass(frozen=True)
class Link:
    """One direction between two hosts: what was measured, or why nothing was."""

    round_trip_us: float | None = None
    mb_per_s: float | None = None
    error: str | None = None


Links = Mapping[tuple[Host, Host], Link]


def measure_links(connections: Sequence[Connection]) -> Links:
    """One pair after the other, so that none disturbs another; whatever fails is that pair's error."""
    links: dict[tuple[Host, Host], Link] = {}
    end = time.monotonic() + TOTAL_S
    with ExitStack() as stack:
        ports: dict[Host, int | ClusterError] = {}
        for connection in connections if len(connections) > 1 else ():
            try:
                ports[connection.host] = stack.enter_context(_serving(connection))
            except ClusterError as error:
                ports[connection.host] = error
        for source in connections:
            for target in connections:
                if source is not target:
                    links[source.host, target.host] = (
                        _measured(source, target.host, ports[target.host])
                        if time.monotonic() < end
                        else Link(error=f"not reached within {TOTAL_S:.0f} s of measuring")
                    )
    return links


@contextmanager
def _serving(connection: Connection) -> Iterator[int]:
    """A server on the host's data address; yields its port. It ends as its stdin does."""
    words = ["timeout", "-k", "5", f"{TOTAL_S + PAIR_S + START_S:.0f}", connection.cluster.python, "-I", "-c", SOURCE]
    server = connection.start([*words, "serve", str(connection.host.address)])
    try:
        told = server.read(within_s=START_S)
        while not re.match(rb"\d+\n", told) and (part := server.read(within_s=1)):
            told += part  # the rest of the number, or of what it complains of
        lines = told.decode(errors="replace").split("\n")
        if not lines[0].isdigit():
            raise ClusterError(
                f"nothing can listen on {connection.host.address}",
                where=connection.name,
                received=lines[-2] if len(lines) > 1 else "no answer",
            )
        yield int(lines[0])
    finally:
        server.end_input()


def _measured(source: Connection, target: Host, port: int | ClusterError) -> Link:
    if isinstance(port, ClusterError):
        return Link(error=str(port))
    words = [source.cluster.python, "-I", "-", "measure", str(source.host.address), str(target.address), str(port)]
    try:
        told = json.loads(source.run(words, timeout_s=PAIR_S, stdin=SOURCE, what="the measurement"))
    except ClusterError as error:
        return Link(error=str(error))
    return Link(**told)
