"""The end of everything that bears a name: instances first, then the groups they were in."""

from __future__ import annotations

import time

from cluster.aws.instances import ENDING, Instance, list_instances
from cluster.aws.service import Aws, AwsError
from cluster.aws.state import LaunchState
from cluster.aws.tags import bearing
from cluster.aws.waiting import Patience, Talk

NOT_LISTED = ("InvalidInstanceID.NotFound",)
GONE = ("InvalidGroup.NotFound", "InvalidPlacementGroup.Unknown")
STILL_USED = ("DependencyViolation", "InvalidPlacementGroup.InUse")


def remove_all(aws: Aws, name: str, state: LaunchState | None, patience: Patience, talk: Talk) -> list[str]:
    """Terminate, wait, delete; returns what remains. Raises AwsError where AWS refuses."""
    remaining = [f"instance {item.instance}: {item.state}" for item in _terminated(aws, name, state, patience, talk)]
    deadline = time.monotonic() + (patience.gone_s if not remaining else 0)
    for group in aws.every("describe_security_groups", "SecurityGroups", Filters=bearing(name)):
        if not _deleted(aws, "delete_security_group", group["GroupId"], "GroupId", deadline, patience):
            remaining.append(f"security group {group['GroupId']} ({group['GroupName']}): in use")
    for group in aws.call("describe_placement_groups", Filters=bearing(name))["PlacementGroups"]:
        is_going = group["State"] in ("deleting", "deleted")
        if not is_going and not _deleted(
            aws, "delete_placement_group", group["GroupName"], "GroupName", deadline, patience
        ):
            remaining.append(f"placement group {group['GroupName']}: in use")
    return remaining + _volumes(aws, name, deadline, patience)


def _terminated(aws: Aws, name: str, state: LaunchState | None, patience: Patience, talk: Talk) -> list[Instance]:
    """Terminate what is alive, until all is gone; returns what is still there at the time limit."""
    started, told = time.monotonic(), ""
    while True:
        found = list_instances(aws, name)
        alive = [item for item in found if item.is_alive]
        if to_end := [item.instance for item in alive if item.state not in ENDING]:
            try:
                aws.call("terminate_instances", InstanceIds=to_end)
            except AwsError as error:
                if error.code not in NOT_LISTED:
                    raise
        now = ", ".join(f"{item.instance} {item.state}" for item in alive)
        if now != told:
            talk(f"terminating: {now or 'all are gone'}")
            told = now
        waited = time.monotonic() - started
        if not alive and (_all_seen(found, state) or waited > patience.listed_s):
            return []
        if waited > patience.gone_s:
            return alive
        time.sleep(patience.poll_s)


def _all_seen(found: list[Instance], state: LaunchState | None) -> bool:
    """Whether every instance that AWS may have started has been in the listing."""
    return state is None or sum(item.launch == state.launch for item in found) >= state.num_asked


def _deleted(aws: Aws, operation: str, group: str, parameter: str, deadline: float, patience: Patience) -> bool:
    """Delete a group; a terminated instance keeps its groups for a while."""
    while True:
        try:
            aws.call(operation, **{parameter: group})
            return True
        except AwsError as error:
            if error.code in GONE:
                return True
            if error.code not in STILL_USED:
                raise
        if time.monotonic() >= deadline:
            return False
        time.sleep(patience.poll_s)


def _volumes(aws: Aws, name: str, deadline: float, patience: Patience) -> list[str]:
    """Disks that did not go with their instances: they cost money."""
    while True:
        volumes = aws.every("describe_volumes", "Volumes", Filters=bearing(name))
        left = [item for item in volumes if item["State"] not in ("deleting", "deleted")]
        if not left or time.monotonic() >= deadline:
            return [f"volume {item['VolumeId']}: {item['State']}" for item in left]
        time.sleep(patience.poll_s)
