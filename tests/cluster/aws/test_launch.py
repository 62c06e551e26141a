"""What a launch asks AWS for, what it writes down, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from cluster.aws.removal import remove_all
from cluster.aws.state import write_state
from cluster.aws.tags import LAUNCH_TAG, NAME_TAG, tag_specifications
from cluster.errors import ClusterError
from cluster.hosts import load_cluster
from tests.cluster.aws.lab import IMAGE, QUICK, REPOSITORY, Lab, console, key_mark, key_text, plan_in, run


def end(lab: Lab) -> list[str]:
    return remove_all(lab.aws, "treespec-g5", lab.state(), QUICK, lab.said.append)


def test_a_launch_makes_what_the_settings_say(lab: Lab) -> None:
    lab.knobs.hidden_looks, lab.knobs.boot_looks = 1, 2
    launched = lab.launch()
    ec2 = lab.aws.ec2
    instances = ec2.describe_instances()["Reservations"][0]["Instances"]
    assert [item["InstanceType"] for item in instances] == ["g5.12xlarge"] * 2
    assert {item["KeyName"] for item in instances} == {"treespec"}
    assert {item["Placement"]["GroupName"] for item in instances} == set(lab.knobs.placement_groups)
    assert [group["Strategy"] for group in lab.knobs.placement_groups.values()] == ["cluster"]
    image = ec2.describe_images(ImageIds=[instances[0]["ImageId"]])["Images"][0]
    assert image["Name"] == f"{IMAGE} 20260101"
    for item in instances:
        tags = {tag["Key"]: tag["Value"] for tag in item["Tags"]}
        assert tags == {NAME_TAG: "treespec-g5", LAUNCH_TAG: launched.launch, "Name": "treespec-g5"}
    volumes = ec2.describe_volumes(Filters=[{"Name": f"tag:{LAUNCH_TAG}", "Values": [launched.launch]}])["Volumes"]
    assert [volume["Size"] for volume in volumes] == [400, 400]


def test_the_security_group_is_open_to_itself_and_to_one_address(lab: Lab) -> None:
    lab.launch()
    groups = lab.aws.ec2.describe_security_groups(Filters=[{"Name": f"tag:{NAME_TAG}", "Values": ["treespec-g5"]}])
    (group,) = groups["SecurityGroups"]
    inside, ssh = sorted(group["IpPermissions"], key=lambda rule: str(rule["IpProtocol"]))
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]]
    assert (inside["IpProtocol"], inside["IpRanges"], inside["Ipv6Ranges"]) == ("-1", [], [])
    assert (ssh["FromPort"], ssh["ToPort"], ssh["UserIdGroupPairs"], ssh["Ipv6Ranges"]) == (22, 22, [], [])
    assert [item["CidrIp"] for item in ssh["IpRanges"]] == ["8.8.8.8/32"]
    for item in lab.aws.ec2.describe_instances()["Reservations"][0]["Instances"]:
        assert [worn["GroupId"] for worn in item["SecurityGroups"]] == [group["GroupId"]]


def test_an_ipv6_address_opens_ipv6_alone(lab: Lab, tmp_path: Path) -> None:
    lab.plan = plan_in(tmp_path, ssh_from="2a00:1450::1/128")
    lab.launch()
    groups = lab.aws.ec2.describe_security_groups(Filters=[{"Name": f"tag:{NAME_TAG}", "Values": ["treespec-g5"]}])
    (ssh,) = [rule for rule in groups["SecurityGroups"][0]["IpPermissions"] if rule["IpProtocol"] == "tcp"]
    assert ([item["CidrIpv6"] for item in ssh["Ipv6Ranges"]], ssh["IpRanges"]) == (["2a00:1450::1/128"], [])


def test_cluster_yaml_is_a_valid_cluster_of_the_instances(lab: Lab) -> None:
    launched = lab.launch()
    cluster = load_cluster(lab.plan.cluster_file)
    assert [host.host for host in cluster.hosts] == [item.public for item in launched.instances]
    assert [str(host.address) for host in cluster.hosts] == [item.private for item in launched.instances]
    assert cluster.num_slots == 8
    assert (cluster.user, str(cluster.work_dir), cluster.device) == ("ubuntu", "/home/ubuntu/treespec", "cuda")
    assert cluster.key == lab.plan.settings.hosts.key
    assert cluster.known_hosts == lab.plan.cluster_file.with_name("cluster.known_hosts")


def test_the_request_is_all_or_none_and_plans_its_own_end(lab: Lab, session: boto3.Session) -> None:
    sent: dict[str, Any] = {}
    lab.aws = replace(lab.aws, ec2=session.client("ec2"))
    lab.aws.ec2.meta.events.register("provide-client-params.ec2.RunInstances", lambda params, **_: sent.update(params))
    launched = lab.launch()
    assert (sent["MinCount"], sent["MaxCount"]) == (2, 2)
    assert sent["ClientToken"] == launched.launch
    assert sent["InstanceInitiatedShutdownBehavior"] == "terminate"
    header, _, body = sent["UserData"].partition("\n")
    assert header == "#cloud-config"
    assert yaml.safe_load(body)["power_state"] == {"mode": "poweroff", "delay": 24 * 60, "condition": True}
    assert [item["Ebs"]["DeleteOnTermination"] for item in sent["BlockDeviceMappings"]] == [True]


def test_a_zone_and_a_subnet_are_asked_for_by_name(lab: Lab, tmp_path: Path) -> None:
    subnets = {item["AvailabilityZone"]: item["SubnetId"] for item in lab.aws.ec2.describe_subnets()["Subnets"]}
    lab.plan = plan_in(tmp_path, availability_zone="us-east-1c", subnet=subnets["us-east-1c"])
    launched = lab.launch()
    assert {item.zone for item in launched.instances} == {"us-east-1c"}
    (reservation,) = lab.aws.ec2.describe_instances()["Reservations"]
    assert {item["SubnetId"] for item in reservation["Instances"]} == {subnets["us-east-1c"]}


def test_the_end_waits_for_what_takes_its_time(lab: Lab) -> None:
    lab.launch()
    lab.knobs.end_looks = 3
    assert end(lab) == []
    assert "terminating: all are gone" in lab.said


def test_a_second_launch_is_refused_while_the_first_lives(lab: Lab) -> None:
    lab.launch()
    with pytest.raises(ClusterError, match="is there already"):
        lab.launch()
    lab.plan = replace(lab.plan, cluster_file=lab.plan.cluster_file.with_name("other.yaml"))
    with pytest.raises(ClusterError, match=r"earlier launch has not been terminated.*python -m cluster terminate"):
        lab.launch()
    lab.plan.state_file.unlink()  # as on another machine
    with pytest.raises(ClusterError, match=r"are alive; received: i-\w+ running, i-\w+ running; fix: .*terminate"):
        lab.launch()
    assert lab.knobs.calls.count("run_instances") == 1


@pytest.mark.parametrize(
    ("operation", "codes"),
    [
        ("delete_security_group", ["DependencyViolation", "DependencyViolation"]),
        ("delete_placement_group", ["InvalidPlacementGroup.InUse", "InvalidPlacementGroup.InUse"]),
    ],
)
def test_groups_are_free_only_some_time_after_the_end(lab: Lab, operation: str, codes: list[str]) -> None:
    lab.launch()
    lab.knobs.refused = [(operation, code) for code in codes]
    assert end(lab) == []
    assert lab.knobs.calls.count(operation) == 3


def test_what_somebody_else_has_deleted_is_gone(lab: Lab) -> None:
    lab.launch()
    lab.knobs.refused = [("delete_placement_group", "InvalidPlacementGroup.Unknown")]
    assert end(lab) == []


@pytest.mark.usefixtures("commands_use")
def test_a_launch_of_another_machine_is_terminated_by_its_tags(lab: Lab) -> None:
    lab.launch()
    for path in (lab.plan.state_file, lab.plan.cluster_file, lab.plan.cluster_file.with_suffix(".known_hosts")):
        path.unlink()
    lab.aws.ec2.create_placement_group(GroupName="theirs", Strategy="cluster")
    request = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1, "Placement": {"GroupName": "theirs"}}
    theirs = lab.aws.ec2.run_instances(**request)
    named = tag_specifications("treespec-g5", "earlier", "instance")
    ours = lab.aws.ec2.run_instances(**request, TagSpecifications=named)
    assert run("terminate", lab.plan) == 0
    assert theirs["Instances"][0]["InstanceId"] not in lab.knobs.ends
    assert ours["Instances"][0]["InstanceId"] in lab.knobs.ends
    assert len(lab.knobs.ends) == 3
    assert list(lab.knobs.placement_groups) == ["theirs"]


@pytest.mark.usefixtures("commands_use")
def test_a_cluster_file_of_ones_own_outlives_terminate(lab: Lab) -> None:
    lab.launch()
    lab.plan.cluster_file.write_text("# mine\n")
    assert run("terminate", lab.plan) == 0
    assert lab.plan.cluster_file.read_text() == "# mine\n"
    assert not lab.plan.state_file.exists()


class Greeting:
    """A connection to an SSH server that says hello."""

    def __enter__(self) -> Greeting:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def recv(self, size: int) -> bytes:
        return b"SSH-2.0-OpenSSH_9.6\r\n"[:size]


@pytest.fixture
def greeted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every address has an SSH server; returns those that were asked."""
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> Greeting:
        asked.append(address)
        return Greeting()

    monkeypatch.setattr("socket.create_connection", connect)
    return asked


@pytest.mark.usefixtures("commands_use")
def test_the_commands_from_launch_to_terminate(
    lab: Lab, greeted: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    lab.knobs.console = lambda instance: console("ssh-ed25519", instance)
    lab.knobs.end_looks = 2
    assert run("launch", lab.plan, "--cluster", str(lab.plan.cluster_file)) == 0
    out, err = capsys.readouterr()
    cluster = load_cluster(lab.plan.cluster_file)
    assert greeted == [(host.host, 22) for host in cluster.hosts]
    assert "cost: 2.50 USD per hour (2 x g5.12xlarge in us-east-1, 1.25 each by your settings of 2026-01-31)" in out
    assert "cost: 2.50 USD per hour" in err, "told before anything costs"
    assert f"python -m cluster terminate --settings {lab.plan.settings_file}" in out
    for host, instance in zip(cluster.hosts, lab.knobs.placed, strict=True):
        assert f"its console shows the host key ED25519 {key_mark('ssh-ed25519', instance)}" in out
        assert f"{host.host} ssh-ed25519 {key_text('ssh-ed25519', instance)}\n" in cluster.known_hosts.read_text()
    assert run("instances", lab.plan) == 0
    out, err = capsys.readouterr()
    alive = [[instance, "running", "g5.12xlarge"] for instance in lab.knobs.placed]
    assert [line.split()[:3] for line in out.splitlines()] == alive
    assert "instance hours" in err
    assert run("terminate", lab.plan) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("nothing named treespec-g5 remains in us-east-1; so far: ") and "USD" in out
    assert run("instances", lab.plan) == 0
    out, err = capsys.readouterr()
    assert out == "" and "none named treespec-g5 is alive in us-east-1" in err
    assert lab.left() == {}


@pytest.mark.usefixtures("commands_use", "greeted")
def test_keys_that_no_console_shows_are_to_be_compared(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("launch", lab.plan, "--cluster", str(lab.plan.cluster_file)) == 0
    out, _ = capsys.readouterr()
    assert "none pinned" in out and "get-console-output" in out
    assert f"python -m cluster accept-keys --cluster {lab.plan.cluster_file}" in out
    assert load_cluster(lab.plan.cluster_file).known_hosts.read_text() == ""


@pytest.mark.usefixtures("commands_use")
def test_another_accounts_credentials_are_refused(lab: Lab) -> None:
    lab.launch()
    write_state(lab.plan.state_file, lab.state().model_copy(update={"account": "999999999999"}))
    for command in ("terminate", "instances"):
        with pytest.raises(ClusterError, match=r"another account's.*allowed: account 999999999999"):
            run(command, lab.plan)
    assert lab.plan.state_file.exists() and lab.plan.cluster_file.exists() and lab.knobs.ends == {}


def test_the_launchs_region_counts_not_the_settings(
    lab: Lab, tmp_path: Path, commands_use: list[tuple[str | None, str | None]]
) -> None:
    lab.launch()
    lab.plan = plan_in(tmp_path, region="eu-west-1")
    assert run("terminate", lab.plan) == 0
    assert commands_use == [(None, "us-east-1")]


def test_no_image_fits(lab: Lab, tmp_path: Path) -> None:
    lab.plan = plan_in(tmp_path, image={"name": "Nothing*", "owner": "self"})
    with pytest.raises(ClusterError, match=r"no such image; received: name 'Nothing\*', owner self"):
        lab.launch()
    assert lab.left() == {}


def test_no_default_network(lab: Lab) -> None:
    lab.backend.vpcs.clear()
    with pytest.raises(ClusterError, match=r"no default network.*fix: name a subnet"):
        lab.launch()


def test_a_price_of_another_region_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.plan = plan_in(tmp_path, price={"usd_per_hour": "1", "region": "eu-west-1", "date": "2026-01-31"})
    with pytest.raises(ClusterError, match="another region's; received: eu-west-1, launching in us-east-1"):
        lab.launch()
    assert lab.left() == {}


def test_without_a_price_no_cost_is_invented(lab: Lab, tmp_path: Path) -> None:
    lab.plan = plan_in(tmp_path, price=None)
    lab.launch()
    (told,) = [line for line in lab.said if line.startswith("cost:")]
    assert told == "cost: not known (2 x g5.12xlarge in us-east-1): the settings give no price; AWS's price list does"


def test_a_missing_private_key_is_told_before_anything_costs(lab: Lab) -> None:
    lab.plan.settings.hosts.key.unlink()
    with pytest.raises(ClusterError, match="private key is not there"):
        lab.launch()
    assert lab.knobs.calls == []


def test_a_console_that_may_not_be_read_does_not_end_the_launch(lab: Lab) -> None:
    lab.knobs.refused = [("get_console_output", "UnauthorizedOperation")]
    lab.launch()
    assert [line for line in lab.said if "consoles cannot be read" in line]
    assert load_cluster(lab.plan.cluster_file).known_hosts.read_text() == ""


def test_a_machine_without_boto3_is_told_which_package(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "import argparse\n"
        "from cluster.aws import add_aws\n"
        "from cluster.errors import ClusterError\n"
        "parser = argparse.ArgumentParser(); add_aws(parser.add_subparsers())\n"
        "args = parser.parse_args(sys.argv[1:])\n"
        "try: args.command(args)\n"
        "except ClusterError as error: print(error)\n"
    )
    words = [sys.executable, "-c", code, "terminate", "--settings", str(plan_in(tmp_path).settings_file)]
    done = subprocess.run(words, cwd=REPOSITORY, text=True, capture_output=True)
    told = "this machine: the Python package boto3 is missing; fix: python -m pip install boto3\n"
    assert done.stdout == told, done.stderr
