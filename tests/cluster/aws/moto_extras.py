"""What moto lacks of EC2 and our launch depends on: placement groups, groups that are in use, and the passing of time.

Moto's instances run in the next listing and are gone at once; Amazon's are listed late, boot, and take their time to
end. Here each takes so many listings. What Amazon's servers really do is not shown by this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response


@dataclass
class Extras:
    """A region's extras, and the knobs of a test; every look is one DescribeInstances."""

    hidden_looks: int = 0
    boot_looks: int = 0
    end_looks: int = 0
    console: Callable[[str], str] = lambda instance: ""
    # (operation, code) of calls that are refused, each once per entry.
    refused: list[tuple[str, str]] = field(default_factory=list)
    # What happens when a call comes in, before it is answered.
    on_call: Callable[[str], None] = lambda operation: None
    calls: list[str] = field(default_factory=list)
    placement_groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    placed: dict[str, str] = field(default_factory=dict)
    ages: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    def state_of(self, instance: str) -> str | None:
        """What Amazon would show of it, None where moto's own state will do."""
        if instance in self.ends:
            return "shutting-down" if self.ends[instance] < self.end_looks else None
        return "pending" if self.ages[instance] < self.hidden_looks + self.boot_looks else None

    def is_there(self, instance: str) -> bool:
        """Not terminated: it still holds its groups."""
        return instance not in self.ends or self.ends[instance] < self.end_looks


@contextmanager
def extras(knobs: Extras) -> Iterator[Extras]:
    """Moto with the extras, inside mock_aws."""
    operations = {
        "create_placement_group": _create_placement_group,
        "describe_placement_groups": _describe_placement_groups,
        "delete_placement_group": _delete_placement_group,
        "run_instances": _run_instances,
        "describe_instances": _describe_instances,
        "terminate_instances": _terminate_instances,
        "delete_security_group": _delete_security_group,
        "get_console_output": _get_console_output,
    }
    plain = ("create_security_group", "authorize_security_group_ingress", "describe_images", "describe_key_pairs")
    with ExitStack() as stack:
        for name in (*operations, *plain):
            original = getattr(EC2Response, name, None)
            answer = operations.get(name)
            stack.enter_context(
                mock.patch.object(EC2Response, name, _counted(knobs, name, answer, original), create=True)
            )
        yield knobs


def _counted(knobs: Extras, name: str, answer: Any, original: Any) -> Callable[[EC2Response], Any]:
    def respond(response: EC2Response) -> Any:
        knobs.calls.append(name)
        knobs.on_call(name)
        for entry in knobs.refused:
            if entry[0] == name:
                knobs.refused.remove(entry)
                raise EC2ClientError(entry[1], f"refused by the test: {entry[1]}")
        return original(response) if answer is None else answer(knobs, response, original)

    return respond


def _create_placement_group(knobs: Extras, response: EC2Response, _: Any) -> ActionResult:
    name = response._get_param("GroupName")
    if name in knobs.placement_groups:
        raise EC2ClientError("InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
    tags = response._parse_tag_specification("placement-group").get("placement-group", {})
    knobs.placement_groups[name] = {
        "GroupName": name,
        "Strategy": response._get_param("Strategy"),
        "State": "available",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    return ActionResult({"PlacementGroup": knobs.placement_groups[name]})


def _describe_placement_groups(knobs: Extras, response: EC2Response, _: Any) -> ActionResult:
    def fits(group: dict[str, Any]) -> bool:
        tags = {f"tag:{tag['Key']}": tag["Value"] for tag in group["Tags"]}
        return all(tags.get(name) in values for name, values in response._filters_from_querystring().items())

    return ActionResult({"PlacementGroups": [group for group in knobs.placement_groups.values() if fits(group)]})


def _delete_placement_group(knobs: Extras, response: EC2Response, _: Any) -> EmptyResult:
    name = response._get_param("GroupName")
    if any(group == name and knobs.is_there(instance) for instance, group in knobs.placed.items()):
        raise EC2ClientError("InvalidPlacementGroup.InUse", f"The placement group '{name}' is in use.")
    del knobs.placement_groups[name]
    return EmptyResult()


def _run_instances(knobs: Extras, response: EC2Response, original: Any) -> Any:
    group = response._get_param("Placement.GroupName")
    if group not in knobs.placement_groups:
        raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{group}' is unknown.")
    result = original(response)
    for instance in result.result.instances:
        instance.placement.group_name = group
        knobs.placed[instance.id], knobs.ages[instance.id] = group, 0
    return result


def _describe_instances(knobs: Extras, response: EC2Response, original: Any) -> Any:
    result = original(response)
    seen = []
    for reservation in result.result["Reservations"]:
        for instance in reservation.instances:
            knobs.ages[instance.id] += 1
            if instance.id in knobs.ends:
                knobs.ends[instance.id] += 1
            if shown := knobs.state_of(instance.id):
                instance._state.name = shown
            elif instance.id in knobs.ends:
                instance._state.name = "terminated"
            elif instance._state.name == "pending":
                instance._state.name = "running"
        if all(knobs.ages[instance.id] > knobs.hidden_looks for instance in reservation.instances):
            seen.append(reservation)
    result.result["Reservations"] = seen
    return result


def _terminate_instances(knobs: Extras, response: EC2Response, original: Any) -> Any:
    result = original(response)
    for item in result.result["TerminatingInstances"]:
        knobs.ends.setdefault(item["InstanceId"], 0)
    return result


def _delete_security_group(knobs: Extras, response: EC2Response, original: Any) -> Any:
    group = response._get_param("GroupId")
    reservations = response.ec2_backend.all_reservations()
    for instance in (item for reservation in reservations for item in reservation.instances):
        if knobs.is_there(instance.id) and group in [item.id for item in instance.security_groups]:
            raise EC2ClientError("DependencyViolation", f"resource {group} has a dependent object")
    return original(response)


def _get_console_output(knobs: Extras, response: EC2Response, _: Any) -> ActionResult:
    instance = response._get_param("InstanceId")
    text = Base64EncodedString.from_raw_string(knobs.console(instance))
    return ActionResult({"InstanceId": instance, "Output": text})
