"""The command line: python -m cluster COMMAND."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.aws.commands import add_aws
from cluster.checks import add_check
from cluster.embedded.cli import add_embedded
from cluster.errors import ClusterError
from cluster.hosts import load_cluster
from cluster.keys import add_accept_keys
from cluster.provision import add_provision


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; what is wrong is one line on stderr and exit status 1, or 2 for the command line itself."""
    args = _parser().parse_args(arguments)
    try:
        return int(args.command(args))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is done stays done, the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description="Several machines over SSH, as one.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_check(commands)
    add_provision(commands)
    run = commands.add_parser("run", help="serve a job's scenarios on the hosts and bring the records back")
    run.add_argument("--cluster", type=Path, required=True, help="cluster.yaml")
    run.add_argument("--ranks", type=int, required=True, help="processes that serve the target together")
    run.add_argument("--config", type=Path, required=True, help="job file")
    run.add_argument("--output-dir", type=Path, required=True, help="folder of the records, on this machine")
    run.set_defaults(command=_run)
    clean = commands.add_parser("clean", help="remove everything of treespec from the hosts")
    clean.add_argument("--cluster", type=Path, required=True, help="cluster.yaml")
    clean.set_defaults(command=_clean)
    hostfile = commands.add_parser("hostfile", help="print <address> slots=<n> for the hosts that so many ranks need")
    hostfile.add_argument("--cluster", type=Path, required=True, help="cluster.yaml")
    hostfile.add_argument("--ranks", type=int, required=True)
    hostfile.set_defaults(command=_hostfile)
    add_accept_keys(commands)
    add_embedded(commands)
    add_aws(commands)
    return parser


def _run(args: argparse.Namespace) -> int:
    from cluster.jobs import load_job
    from cluster.launch import run_job

    cluster, job = load_cluster(args.cluster), load_job(args.config, args.ranks)
    num_new = run_job(cluster, job, args.output_dir)
    print(f"{num_new} records are new", file=sys.stderr)
    return 0


def _clean(args: argparse.Namespace) -> int:
    from cluster.launch import clean_hosts

    clean_hosts(load_cluster(args.cluster))
    return 0


def _hostfile(args: argparse.Namespace) -> int:
    sys.stdout.write(load_cluster(args.cluster).hostfile(args.ranks))
    return 0
