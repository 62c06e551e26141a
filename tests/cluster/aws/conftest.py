"""Mocked AWS: nobody's credentials, no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID

from cluster.aws.service import Aws
from tests.cluster.aws.lab import IMAGE, REGION, Lab, plan_in
from tests.cluster.aws.moto_extras import Extras, extras


@pytest.fixture(autouse=True)
def own_account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Credentials of nobody, no configuration of whoever runs the tests, no metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.getbasetemp()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": str(folder / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    """Loads Amazon's description of EC2 once: it is large."""
    return boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name=REGION)


@pytest.fixture(scope="session")
def ec2(session: boto3.Session) -> Any:
    """One client for all tests; one that a test changes has to be its own."""
    return session.client("ec2")


@pytest.fixture
def lab(ec2: Any, tmp_path: Path) -> Iterator[Lab]:
    """An account with a key pair and four images, of which the second is the newest that fits the plan."""
    with mock_aws(), extras(Extras()) as knobs:
        lab = Lab(Aws(ec2, REGION, DEFAULT_ACCOUNT_ID), plan_in(tmp_path), knobs)
        ec2.create_key_pair(KeyName="treespec", KeyType="ed25519")
        names = [f"{IMAGE} 20250101", f"{IMAGE} 20260101", f"{IMAGE} 20240101", "Something else 20270101"]
        for name in names:
            image = lab.backend.amis[ec2.register_image(Name=name, RootDeviceName="/dev/sda1")["ImageId"]]
            image.creation_date, image.root_device_type = datetime(int(name[-8:-4]), 1, 1, tzinfo=UTC), "ebs"
        knobs.calls.clear()
        yield lab


@pytest.fixture
def commands_use(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, str | None]]:
    """The commands open this lab's account, by a clock that runs ahead; returns what profiles and regions they want."""
    opened: list[tuple[str | None, str | None]] = []

    def open_lab(profile: str | None, region: str | None) -> Aws:
        opened.append((profile, region))
        return lab.aws

    now = [0.0]
    monkeypatch.setattr("cluster.aws.service.open_aws", open_lab)
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + 20 * seconds))
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return opened
