"""The security group and the placement group of a launch."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from cluster.aws.service import Aws
from cluster.aws.settings import AwsSettings
from cluster.aws.tags import tag_specifications
from cluster.errors import ClusterError


def find_network(aws: Aws, settings: AwsSettings) -> str:
    """The VPC that the instances will be in: the named subnet's, else the default one. Raises ClusterError."""
    if settings.subnet is not None:
        subnets = aws.call("describe_subnets", SubnetIds=[settings.subnet])["Subnets"]
        return str(subnets[0]["VpcId"])
    vpcs = aws.call("describe_vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise ClusterError(
            "no default network in this region",
            where=aws.where,
            fix="name a subnet in the settings, or make one: aws ec2 create-default-vpc",
        )
    return str(vpcs[0]["VpcId"])


def create_security_group(aws: Aws, settings: AwsSettings, launch: str, vpc: str) -> str:
    """A group that is open to itself, and on port 22 to ``ssh_from``; returns its id."""
    group = aws.call(
        "create_security_group",
        GroupName=f"{settings.name}-{launch}",
        Description="treespec: open to itself, SSH from one network",
        VpcId=vpc,
        TagSpecifications=tag_specifications(settings.name, launch, "security-group"),
    )["GroupId"]
    inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    aws.call("authorize_security_group_ingress", GroupId=group, IpPermissions=[inside, _ssh(settings.ssh_from)])
    return str(group)


def create_placement_group(aws: Aws, settings: AwsSettings, launch: str) -> str:
    """A cluster placement group: the instances stand close to each other; returns its name."""
    name = f"{settings.name}-{launch}"
    aws.call(
        "create_placement_group",
        GroupName=name,
        Strategy="cluster",
        TagSpecifications=tag_specifications(settings.name, launch, "placement-group"),
    )
    return name


def _ssh(network: IPv4Network | IPv6Network) -> dict[str, Any]:
    ranges = (
        {"IpRanges": [{"CidrIp": str(network)}]}
        if network.version == 4
        else {"Ipv6Ranges": [{"CidrIpv6": str(network)}]}
    )
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **ranges}
