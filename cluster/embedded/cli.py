"""``up`` and ``down``: the embedded cluster from the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cluster.embedded.processes import STOP_SIGNALS
from cluster.embedded.testbed import CLUSTER_FILE, DISK_GIB, EmbeddedCluster


def add_embedded(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register both commands."""
    up = commands.add_parser("up", help="make two hosts on this machine, and cluster.yaml for them")
    up.add_argument("--folder", type=Path, required=True, help="for cluster.yaml, keys and logs")
    up.add_argument("--kind", choices=("auto", "namespaces", "loopback"), default="auto")
    up.add_argument("--disk-gib", type=float, default=DISK_GIB, help="limit of each host's own files (memory)")
    up.set_defaults(command=_up)
    down = commands.add_parser("down", help="end what up has started")
    down.add_argument("--folder", type=Path, required=True)
    down.add_argument("--force", action="store_true", help="also while a run goes on; its records are lost")
    down.set_defaults(command=_down)


def _up(args: argparse.Namespace) -> int:
    for number in STOP_SIGNALS:
        signal.signal(number, _stopped)
    EmbeddedCluster(args.folder, kind=args.kind, disk_gib=args.disk_gib).up()
    print(args.folder / CLUSTER_FILE)
    return 0


def _down(args: argparse.Namespace) -> int:
    hosts = EmbeddedCluster(args.folder)
    if not args.force:
        hosts.require_idle()
    ended = hosts.down()
    print(f"{args.folder}: " + ("ended" if ended else "nothing was up"), file=sys.stderr)
    return 0


def _stopped(number: int, _frame: FrameType | None) -> NoReturn:
    """Raise, so that what was started is ended; a second signal cannot interrupt that."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)
