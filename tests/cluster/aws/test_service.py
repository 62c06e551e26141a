"""Every error of AWS, and on the way to it, is one line that says what to do."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID, set_initial_no_auth_action_count

from cluster.aws.service import OF_SERVICE, Aws, AwsError, open_aws
from tests.cluster.aws.lab import REGION


@pytest.mark.parametrize("code", [*OF_SERVICE, "UnauthorizedOperation", "SomethingNew"])
def test_every_refusal_is_one_line_with_what_to_do(ec2: Any, code: str) -> None:
    message = "You may not.\nEncoded authorization failure message: " + "x" * 500
    with Stubber(ec2) as stub:
        stub.add_client_error("run_instances", code, message)
        with pytest.raises(AwsError) as caught:
            Aws(ec2, REGION, "1").call("run_instances", ImageId="ami-1", MinCount=2, MaxCount=2)
    told = str(caught.value)
    assert told.startswith(f"AWS {REGION}: ") and "RunInstances" in told and f"received: {code}: You may not." in told
    assert "\n" not in told and "xxx" not in told
    assert ("fix: " in told) == (code != "SomethingNew")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("InsufficientInstanceCapacity", "another availability_zone"),
        ("VcpuLimitExceeded", "Service Quotas"),
        ("UnauthorizedOperation", "administrator"),
        ("RequestLimitExceeded", "try again"),
        ("AuthFailure", "access key"),
    ],
)
def test_the_fix_fits_the_refusal(ec2: Any, code: str, fix: str) -> None:
    with Stubber(ec2) as stub:
        stub.add_client_error("describe_instances", code, "no")
        with pytest.raises(AwsError, match=f"fix: .*{fix}"):
            Aws(ec2, REGION, "1").every("describe_instances", "Reservations")


def test_the_account_and_the_region_are_found() -> None:
    with mock_aws():
        aws = open_aws(None, "eu-west-1")
    assert (aws.region, aws.account, aws.where) == ("eu-west-1", DEFAULT_ACCOUNT_ID, "AWS eu-west-1")


def test_no_region() -> None:
    with pytest.raises(AwsError, match=r"no region; .*fix: .*AWS_DEFAULT_REGION"):
        open_aws(None, None)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AwsError, match=r"no credentials; .*fix: .*aws configure"):
        open_aws(None, REGION)


def test_half_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AwsError, match="half of the credentials"):
        open_aws(None, REGION)


def test_no_such_profile() -> None:
    with pytest.raises(AwsError, match=r"no such profile; received: .*\(nope\).*fix: .*list-profiles"):
        open_aws("nope", REGION)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(AwsError, match=r"AWS cannot be reached; .*fix: .*network"):
        open_aws(None, REGION)


def test_refused_credentials() -> None:
    @set_initial_no_auth_action_count(0)
    def attempt() -> None:
        open_aws(None, REGION)

    with mock_aws(), pytest.raises(AwsError, match=r"credentials were refused.*fix: .*access key"):
        attempt()
