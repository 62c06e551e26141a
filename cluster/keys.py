"""Accepting host keys: shown, compared by a person, pinned."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cluster.errors import ClusterError
from cluster.hosts import Cluster, load_cluster
from cluster.ssh import described_key, host_key, is_pinned, pin


def add_accept_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command."""
    accept = commands.add_parser("accept-keys", help="show the keys of hosts that are not known yet, and pin them")
    accept.add_argument("--cluster", type=Path, required=True, help="cluster.yaml")
    accept.add_argument("--yes", action="store_true", help="pin them without asking: the network is trusted")
    accept.set_defaults(command=_accept)


def _accept(args: argparse.Namespace) -> int:
    return accept_keys(load_cluster(args.cluster), is_trusted=args.yes)


def accept_keys(cluster: Cluster, *, is_trusted: bool) -> int:
    """Show each unknown host's key and pin it if a person says so; a changed key is never replaced here."""
    for host in cluster.hosts:
        key = host_key(host, cluster.connect_timeout_s)
        if is_pinned(cluster, host, key):
            print(f"{host.host}: known, {described_key(key)}")
            continue
        print(f"{host.host}: {described_key(key)}")
        if not is_trusted and not _says_yes(
            f"Is this the key that {host.host} itself shows (ssh-keygen -lf)? [yes/no] "
        ):
            raise ClusterError(
                "its key was not accepted", where=host.host, fix="compare the fingerprint on its console"
            )
        pin(cluster, host, key)
        print(f"{host.host}: pinned in {cluster.known_hosts}")
    return 0


def _says_yes(question: str) -> bool:
    print(question, end="", flush=True)
    return sys.stdin.readline().strip() == "yes"
