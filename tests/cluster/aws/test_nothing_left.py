"""However a launch ends early, no instance stays behind unnoticed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError

from cluster.aws.removal import remove_all
from cluster.aws.service import AwsError
from cluster.aws.state import LaunchState, write_state
from cluster.errors import ClusterError
from tests.cluster.aws.lab import QUICK, REGION, Lab, run


@pytest.fixture
def heard(number: signal.Signals) -> Iterator[None]:
    """A signal is not ignored, as it is where the tests run in the background of a shell."""
    before = signal.signal(number, signal.default_int_handler)
    yield
    signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("heard")
def test_a_signal_while_waiting_terminates_what_was_started(lab: Lab, number: signal.Signals) -> None:
    def answers(address: str) -> bool:
        signal.raise_signal(number)
        return True

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        lab.launcher(answers).launch()
    assert len(lab.knobs.ends) == 2
    assert lab.left() == {}
    assert signal.getsignal(number) is before


def test_further_signals_do_not_stop_the_clearing_up(lab: Lab) -> None:
    def answers(address: str) -> bool:
        lab.knobs.on_call = lambda operation: signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    lab.knobs.end_looks = 2
    with pytest.raises(KeyboardInterrupt):
        lab.launcher(answers).launch()
    lab.knobs.on_call = lambda operation: None
    assert lab.left() == {}


@pytest.mark.usefixtures("commands_use")
def test_an_interrupted_command_says_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(address: object, timeout: float) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("socket.create_connection", connect)
    assert run("launch", lab.plan, "--cluster", str(lab.plan.cluster_file)) == 130
    assert "nothing is left behind" in capsys.readouterr().err
    assert lab.left() == {}


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("describe_images", "UnauthorizedOperation"),
        ("describe_key_pairs", "InvalidKeyPair.NotFound"),
        ("create_security_group", "UnauthorizedOperation"),
        ("authorize_security_group_ingress", "UnauthorizedOperation"),
        ("create_placement_group", "UnauthorizedOperation"),
        ("run_instances", "InsufficientInstanceCapacity"),
        ("run_instances", "VcpuLimitExceeded"),
    ],
)
def test_a_refused_call_leaves_nothing(lab: Lab, operation: str, code: str) -> None:
    lab.knobs.refused = [(operation, code)]
    with pytest.raises(AwsError, match=code) as caught:
        lab.launch()
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert lab.knobs.refused == []
    assert lab.left() == {}


def test_a_lost_answer_to_the_request_leaves_nothing(lab: Lab, session: boto3.Session) -> None:
    """The instances have started, their ids never arrive, and they are listed late."""

    def lose(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="https://ec2")

    lab.knobs.hidden_looks = 3
    lab.aws = replace(lab.aws, ec2=session.client("ec2"))
    lab.aws.ec2.meta.events.register("after-call.ec2.RunInstances", lose)
    with pytest.raises(AwsError, match="connection to AWS failed"):
        lab.launch()
    assert len(lab.knobs.placed) == 2
    assert set(lab.knobs.ends) == set(lab.knobs.placed)
    assert lab.left() == {}


def test_an_instance_that_ends_while_booting_ends_the_launch(lab: Lab) -> None:
    def end_one(operation: str) -> None:
        if operation == "describe_instances" and lab.knobs.placed and not lab.knobs.ends:
            instance = next(iter(lab.knobs.placed))
            lab.backend.terminate_instances([instance])
            lab.knobs.ends[instance] = 0

    lab.knobs.on_call = end_one
    with pytest.raises(ClusterError, match=r"instance i-\w+ is terminated; received: Client.UserInitiatedShutdown"):
        lab.launch()
    assert len(lab.knobs.ends) == 2
    assert lab.left() == {}


def test_one_instance_that_is_well_is_not_enough(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon leaves instances out of its answer for a while; one of two that is well is not a cluster."""
    every = type(lab.aws).every

    def first_only(aws: Any, operation: str, key: str, **parameters: Any) -> list[Any]:
        answer = every(aws, operation, key, **parameters)
        return answer[:1] if operation == "describe_instance_status" else answer

    monkeypatch.setattr(type(lab.aws), "every", first_only)
    with pytest.raises(ClusterError, match=r"not ready.*allowed: 0\.1 s"):
        lab.launcher(patience=replace(QUICK, boot_s=0.1)).launch()
    assert lab.left() == {}


def test_a_port_that_does_not_answer_ends_the_launch(lab: Lab) -> None:
    with pytest.raises(ClusterError, match=r"port 22 does not answer.*8\.8\.8\.8/32"):
        lab.launcher(lambda address: False).launch()
    assert lab.left() == {}


@pytest.mark.parametrize("full", ["cluster.yaml", "aws.state.json"])
def test_a_disk_that_is_full_ends_the_launch(lab: Lab, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    replace_file = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == full and (full == "cluster.yaml" or lab.knobs.placed):
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ClusterError, match=f"{full}.*No space left on device"):
        lab.launch()
    assert len(lab.knobs.ends) == 2
    assert lab.left() == {}


@pytest.mark.usefixtures("commands_use")
def test_what_cannot_be_terminated_is_told_with_the_commands(lab: Lab) -> None:
    def answers(address: str) -> bool:
        lab.knobs.refused = [("terminate_instances", "UnauthorizedOperation")]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.launcher(answers).launch()
    state = lab.state()
    assert set(state.instance_ids) == set(lab.knobs.placed)
    told = "\n".join(lab.said)
    assert f"aws ec2 terminate-instances --region {REGION} --instance-ids {' '.join(state.instance_ids)}" in told
    assert f"python -m cluster terminate --settings {lab.plan.settings_file}" in told
    assert "COST MONEY" in told and "nothing is left behind" not in told
    assert run("terminate", lab.plan) == 0
    assert lab.left() == {}


@pytest.mark.usefixtures("commands_use")
def test_what_remains_is_named_and_kept_in_mind(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.launch()
    lab.knobs.end_looks = 10**6
    assert run("terminate", lab.plan) == 1
    out, _ = capsys.readouterr()
    for instance in lab.knobs.placed:
        assert f"remains in AWS {REGION}: instance {instance}: shutting-down" in out
    for group in lab.knobs.placement_groups:
        assert f"placement group {group}: in use" in out
        assert f"({group}): in use" in out, "the security group bears the same name"
    assert lab.state().instance_ids == tuple(lab.knobs.placed) and lab.plan.cluster_file.exists()
    lab.knobs.end_looks = 0
    assert run("terminate", lab.plan) == 0
    assert lab.left() == {}


def test_a_killed_launch_is_found_by_its_state(lab: Lab) -> None:
    """As after kill -9 between the request and its answer: asked for, no ids, not listed yet."""
    lab.launch()
    write_state(lab.plan.state_file, lab.state().model_copy(update={"instance_ids": ()}))
    lab.knobs.hidden_looks = max(lab.knobs.ages.values()) + 4
    assert remove_all(lab.aws, "treespec-g5", lab.state(), QUICK, lab.said.append) == []
    assert set(lab.knobs.ends) == set(lab.knobs.placed)


def test_two_launches_at_once_are_one(lab: Lab) -> None:
    """The other one has got as far as its state while this one asked AWS."""

    def other(operation: str) -> None:
        if operation == "describe_key_pairs":
            state = LaunchState(
                name="treespec-g5",
                launch="other",
                region=REGION,
                account="1",
                started_at=datetime.now(UTC),
                cluster_file=lab.plan.cluster_file,
            )
            lab.plan.state_file.write_text(state.model_dump_json())

    lab.knobs.on_call = other
    with pytest.raises(ClusterError, match=r"state cannot be written.*File exists"):
        lab.launch()
    assert "create_security_group" not in lab.knobs.calls
    assert json.loads(lab.plan.state_file.read_text())["launch"] == "other"
