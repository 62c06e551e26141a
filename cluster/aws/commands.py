"""The commands launch, terminate and instances; boto3 is imported only when one of them runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.aws.cost import cost_per_hour, cost_so_far
from cluster.aws.settings import AwsSettings, load_settings
from cluster.aws.state import LaunchState, read_state, state_file_of
from cluster.aws.waiting import Patience
from cluster.errors import ClusterError

if TYPE_CHECKING:
    from cluster.aws.files import Plan
    from cluster.aws.launching import Launched
    from cluster.aws.service import Aws


def add_aws(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands."""
    launch = commands.add_parser("launch", help="start machines at AWS and write cluster.yaml; costs money")
    launch.add_argument("--cluster", type=Path, required=True, help="cluster.yaml to be written")
    launch.set_defaults(command=_launch)
    terminate = commands.add_parser("terminate", help="end the machines at AWS, and all that was made for them")
    terminate.set_defaults(command=_terminate)
    instances = commands.add_parser("instances", help="list the machines at AWS that are alive")
    instances.set_defaults(command=_instances)
    for command in (launch, terminate, instances):
        command.add_argument("--settings", type=Path, required=True, help="aws.yaml; see config/aws.example.yaml")


def talk(line: str) -> None:
    """Say it on stderr; a terminal that is gone must not keep machines alive."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def needing_boto3() -> Iterator[None]:
    """Imports inside the block need boto3. Raises ClusterError where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("boto3", "botocore"):
            raise
        raise ClusterError(
            f"the Python package {package} is missing", where="this machine", fix="python -m pip install boto3"
        ) from error


def _launch(args: argparse.Namespace) -> int:
    with needing_boto3():
        from cluster.aws.files import Plan
        from cluster.aws.launching import Launcher
        from cluster.aws.service import open_aws

    plan = Plan(load_settings(args.settings), args.settings, args.cluster)
    aws = open_aws(plan.settings.profile, plan.settings.region)
    try:
        launched = Launcher(aws, plan, Patience(), talk).launch()
    except KeyboardInterrupt:
        talk("interrupted; there is no cluster")
        return 130
    _tell_launched(aws, plan, launched)
    return 0


def _tell_launched(aws: Aws, plan: Plan, launched: Launched) -> None:
    settings = plan.settings
    print(f"launched: {len(launched.instances)} x {settings.instance_type} in {aws.region}, launch {launched.launch}")
    unpinned = []
    for item in launched.instances:
        print(f"{item.reached_by}: {item.instance}, {item.zone}, {item.private}")
        shown = launched.consoles[item.instance]
        for fingerprint in shown.fingerprints:
            print(f"    its console shows the host key {fingerprint}")
        if not shown.keys:
            unpinned.append(item.reached_by)
    if unpinned:
        print(f"host keys: none pinned for {', '.join(map(str, unpinned))}. Compare before you accept: the console")
        print(f"    (aws ec2 get-console-output --latest --output text --region {aws.region} --instance-id ID)")
        print(f"    against python -m cluster accept-keys --cluster {plan.cluster_file}")
    else:
        print("host keys: pinned, as the consoles show them")
    print(f"cluster: {plan.cluster_file}")
    print(cost_per_hour(settings, aws.region))
    print(f"to end it: {plan.terminate}")


def _terminate(args: argparse.Namespace) -> int:
    with needing_boto3():
        from cluster.aws.files import forget
        from cluster.aws.instances import list_instances
        from cluster.aws.removal import remove_all

    settings, state_file = load_settings(args.settings), state_file_of(args.settings)
    state = read_state(state_file)
    aws, name = _open(settings, state), state.name if state else settings.name
    started = [item.started_at for item in list_instances(aws, name) if item.is_alive]
    remaining = remove_all(aws, name, state, Patience(), talk)
    for line in remaining:
        print(f"remains in {aws.where}: {line}")
    if remaining:
        talk("run it again: what is in use now may be free later")
        return 1
    if state is not None:
        forget(state_file, state)
    print(f"nothing named {name} remains in {aws.region}; {cost_so_far(settings, started, datetime.now(UTC))}")
    return 0


def _instances(args: argparse.Namespace) -> int:
    with needing_boto3():
        from cluster.aws.instances import list_instances

    settings, state = load_settings(args.settings), read_state(state_file_of(args.settings))
    aws, name = _open(settings, state), state.name if state else settings.name
    alive = [item for item in list_instances(aws, name) if item.is_alive]
    for item in alive:
        addresses = f"{item.public or '-'}  {item.private or '-'}"
        started = f"{item.started_at:%Y-%m-%dT%H:%M:%SZ}"
        print(f"{item.instance}  {item.state}  {item.kind}  {item.zone}  {addresses}  {started}  {item.launch or '-'}")
    if alive:
        talk(cost_so_far(settings, [item.started_at for item in alive], datetime.now(UTC)))
    else:
        talk(f"none named {name} is alive in {aws.region}")
    if state is not None and not alive:
        talk(f"launch {state.launch} is still written down: python -m cluster terminate --settings {args.settings}")
    return 0


def _open(settings: AwsSettings, state: LaunchState | None) -> Aws:
    """Where the launch is, whatever the settings say by now. Raises ClusterError with another account's credentials."""
    with needing_boto3():
        from cluster.aws.service import open_aws

    aws = open_aws(settings.profile, state.region if state else settings.region)
    if state is not None and aws.account != state.account:
        raise ClusterError(
            "the launch is another account's",
            where=aws.where,
            received=f"account {aws.account}",
            allowed=f"account {state.account}",
            fix="name its profile in the settings: what this account cannot see is not gone",
        )
    return aws
