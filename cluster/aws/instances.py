"""Instances: chosen image, request, listing, and waiting until they can be used."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from cluster.aws.service import Aws
from cluster.aws.settings import AwsSettings
from cluster.aws.state import LaunchState
from cluster.aws.tags import LAUNCH_TAG, bearing, tag_specifications
from cluster.aws.waiting import Patience, Talk
from cluster.errors import ClusterError

ENDING = ("shutting-down", "terminated")


@dataclass(frozen=True)
class Instance:
    """An instance as a listing shows it; addresses may be missing until it runs."""

    instance: str
    launch: str
    state: str
    kind: str
    zone: str
    public: str | None
    private: str | None
    started_at: datetime
    index: int
    reason: str

    @property
    def is_alive(self) -> bool:
        """Everything but terminated: what is stopped costs its disk."""
        return self.state != "terminated"

    @property
    def reached_by(self) -> str | None:
        """The address that this machine reaches it by."""
        return self.public or self.private


def newest_image(aws: Aws, settings: AwsSettings) -> dict[str, Any]:
    """The newest image of the pattern and owner, as AWS describes it. Raises ClusterError if there is none."""
    images = aws.every(
        "describe_images",
        "Images",
        Owners=[settings.image.owner],
        Filters=[
            {"Name": "name", "Values": [settings.image.name]},
            {"Name": "state", "Values": ["available"]},
            {"Name": "root-device-type", "Values": ["ebs"]},
        ],
    )
    if not images:
        raise ClusterError(
            "no such image",
            where=aws.where,
            received=f"name {settings.image.name!r}, owner {settings.image.owner}",
            fix="name another pattern or owner; aws ec2 describe-images --owners amazon lists them",
        )
    newest: dict[str, Any] = max(images, key=lambda image: (image["CreationDate"], image["ImageId"]))
    return newest


def run_instances(
    aws: Aws, settings: AwsSettings, launch: str, image: dict[str, Any], security_group: str, placement_group: str
) -> tuple[str, ...]:
    """Ask for all instances or none; returns their ids. Raises AwsError."""
    placement = {"GroupName": placement_group}
    if settings.availability_zone is not None:
        placement["AvailabilityZone"] = settings.availability_zone
    disk = {"VolumeSize": settings.root_volume_gib, "VolumeType": "gp3", "DeleteOnTermination": True}
    answer = aws.call(
        "run_instances",
        ImageId=image["ImageId"],
        InstanceType=settings.instance_type,
        MinCount=settings.num_instances,
        MaxCount=settings.num_instances,
        ClientToken=launch,
        KeyName=settings.key_pair,
        SecurityGroupIds=[security_group],
        Placement=placement,
        BlockDeviceMappings=[{"DeviceName": image["RootDeviceName"], "Ebs": disk}],
        # Switched off from inside is terminated.
        InstanceInitiatedShutdownBehavior="terminate",
        MetadataOptions={"HttpTokens": "required"},
        TagSpecifications=tag_specifications(settings.name, launch, "instance", "volume"),
        UserData=_user_data(settings.terminate_after_hours),
        **({"SubnetId": settings.subnet} if settings.subnet is not None else {}),
    )
    return tuple(item["InstanceId"] for item in answer["Instances"])


def _user_data(hours: int | None) -> str:
    """What cloud-init does at the first boot: plan the end, for whoever forgets."""
    plan = {} if hours is None else {"power_state": {"mode": "poweroff", "delay": hours * 60, "condition": True}}
    return "#cloud-config\n" + yaml.safe_dump(plan)


def list_instances(aws: Aws, name: str) -> list[Instance]:
    """Every instance that bears the name, in their order; the terminated ones for about an hour."""
    reservations = aws.every("describe_instances", "Reservations", Filters=bearing(name))
    found = [_instance(item) for reservation in reservations for item in reservation["Instances"]]
    return sorted(found, key=lambda item: (item.started_at, item.index, item.instance))


def _instance(item: dict[str, Any]) -> Instance:
    return Instance(
        instance=item["InstanceId"],
        launch=next((tag["Value"] for tag in item.get("Tags", []) if tag["Key"] == LAUNCH_TAG), ""),
        state=item["State"]["Name"],
        kind=item["InstanceType"],
        zone=item["Placement"]["AvailabilityZone"],
        public=item.get("PublicIpAddress") or None,
        private=item.get("PrivateIpAddress") or None,
        started_at=item["LaunchTime"],
        index=item.get("AmiLaunchIndex", 0),
        reason=item.get("StateReason", {}).get("Message", ""),
    )


def wait_until_ready(
    aws: Aws, state: LaunchState, ids: tuple[str, ...], patience: Patience, talk: Talk
) -> list[Instance]:
    """Wait until all run and have passed Amazon's checks. Raises ClusterError where one ends, or at the limit."""
    deadline, told = time.monotonic() + patience.boot_s, ""
    while True:
        instances = [item for item in list_instances(aws, state.name) if item.launch == state.launch]
        if ended := [item for item in instances if item.state not in ("pending", "running")]:
            raise ClusterError(
                f"instance {ended[0].instance} is {ended[0].state}",
                where=aws.where,
                received=ended[0].reason or None,
                fix="launch again; if it happens again, the reason is AWS's",
            )
        statuses = _statuses(aws, ids) if len(instances) == len(ids) else {}
        now = ", ".join(f"{item.instance} {item.state} {statuses.get(item.instance, '-')}" for item in instances)
        if now != told:
            talk(f"instances: {now or 'not listed yet'}")
            told = now
        if len(statuses) == len(ids) and all(status == "ok" for status in statuses.values()):
            return instances
        if time.monotonic() >= deadline:
            raise ClusterError(
                "the instances are not ready", where=aws.where, received=now, allowed=f"{patience.boot_s:g} s"
            )
        time.sleep(patience.poll_s)


def _statuses(aws: Aws, ids: tuple[str, ...]) -> dict[str, str]:
    """Per instance ``ok`` if both of Amazon's checks have passed, else what they say.

    botocore's own waiter is content when one instance is reported at all and is well.
    """
    items = aws.every("describe_instance_status", "InstanceStatuses", InstanceIds=list(ids), IncludeAllInstances=True)
    pairs = {item["InstanceId"]: {item["InstanceStatus"]["Status"], item["SystemStatus"]["Status"]} for item in items}
    return {instance: "/".join(sorted(states)) for instance, states in pairs.items()}


def speaks_ssh(address: str, port: int = 22, timeout_s: float = 5) -> bool:
    """Whether an SSH server greets there."""
    try:
        with socket.create_connection((address, port), timeout_s) as sock:
            return sock.recv(64).startswith(b"SSH-")
    except OSError:
        return False


def wait_for_ssh(
    instances: Sequence[Instance], ssh_from: object, answers: Callable[[str], bool], patience: Patience
) -> None:
    """Wait until port 22 answers on all. Raises ClusterError naming the first that does not."""
    deadline = time.monotonic() + patience.ssh_s
    for item in instances:
        while item.reached_by is None or not answers(item.reached_by):
            if time.monotonic() >= deadline:
                raise ClusterError(
                    "runs, but port 22 does not answer",
                    where=f"{item.instance} ({item.reached_by or 'no address'})",
                    allowed=f"{patience.ssh_s:g} s",
                    fix=f"is this machine seen as one of {ssh_from}? has the subnet public addresses and a gateway?",
                )
            time.sleep(patience.poll_s)
