"""A mocked account, a plan for it, and short ways to say what tests do with them."""

from __future__ import annotations

import argparse
import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID

from cluster.aws import add_aws
from cluster.aws.files import Plan
from cluster.aws.instances import list_instances
from cluster.aws.launching import Launched, Launcher
from cluster.aws.service import Aws
from cluster.aws.settings import load_settings
from cluster.aws.state import LaunchState, read_state
from cluster.aws.waiting import Patience
from tests.cluster.aws.moto_extras import Extras

REPOSITORY = Path(__file__).parents[3]
REGION = "us-east-1"
IMAGE = "Deep Learning Base (Ubuntu 24.04)"
QUICK = Patience(poll_s=0.02, boot_s=2, ssh_s=0.2, console_s=0, gone_s=2, listed_s=0.2)


def plan_in(folder: Path, **changes: Any) -> Plan:
    """The example's settings, for the images and the key of the mock, and what a test changes of them."""
    key = folder / "key.pem"
    key.touch()
    data = yaml.safe_load((REPOSITORY / "config/aws.example.yaml").read_text())
    data |= {"ssh_from": "8.8.8.8/32", "image": {"name": f"{IMAGE} ????????", "owner": "self"}}
    data |= {"price": {"usd_per_hour": "1.25", "region": REGION, "date": "2026-01-31"}} | changes
    data["hosts"]["key"] = str(key)
    settings = folder / "aws.yaml"
    settings.write_text(yaml.safe_dump(data))
    return Plan(load_settings(settings), settings, folder / "cluster.yaml")


def run(command: str, plan: Plan, *more: str) -> int:
    """A command as ``python -m cluster`` would run it."""
    parser = argparse.ArgumentParser()
    add_aws(parser.add_subparsers(required=True))
    args = parser.parse_args([command, "--settings", str(plan.settings_file), *more])
    return int(args.command(args))


@dataclass
class Lab:
    """One test's account and plan; ``said`` is what the user was told."""

    aws: Aws
    plan: Plan
    knobs: Extras
    said: list[str] = field(default_factory=list)

    @property
    def backend(self) -> Any:
        """Moto's own account of it."""
        return get_backend("ec2")[DEFAULT_ACCOUNT_ID][REGION]

    def launcher(self, answers: Callable[[str], bool] = lambda address: True, patience: Patience = QUICK) -> Launcher:
        return Launcher(self.aws, self.plan, patience, self.said.append, answers)

    def launch(self) -> Launched:
        return self.launcher().launch()

    def state(self) -> LaunchState:
        state = read_state(self.plan.state_file)
        assert state is not None
        return state

    def left(self) -> dict[str, list[str]]:
        """What a launch has left at AWS and on this machine, by kind; empty if nothing."""
        ec2 = self.aws.ec2
        files = {path.name for path in self.plan.settings_file.parent.iterdir()} - {"aws.yaml", "key.pem"}
        groups = [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]
        found = {
            "instances": [item.instance for item in list_instances(self.aws, "treespec-g5") if item.is_alive],
            "security groups": [name for name in groups if name != "default"],
            "placement groups": list(self.knobs.placement_groups),
            "volumes": [volume["VolumeId"] for volume in ec2.describe_volumes()["Volumes"]],
            "files": sorted(files),
        }
        return {kind: names for kind, names in found.items() if names}


def key_blob(kind: str, name: str) -> bytes:
    """A host key as OpenSSH stores it, as far as its algorithm's name goes."""
    return len(kind).to_bytes(4, "big") + kind.encode() + name.encode() * 3


def key_text(kind: str, name: str) -> str:
    """The key as a line of known_hosts holds it."""
    return base64.b64encode(key_blob(kind, name)).decode()


def key_mark(kind: str, name: str) -> str:
    """The key's fingerprint."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key_blob(kind, name)).digest()).decode().rstrip("=")


def console(kind: str, name: str) -> str:
    """A console's text in the form that cloud-init prints."""
    short = kind.removeprefix("ssh-").upper()
    return (
        "[    9.9] some kernel message\r\n"
        "<14>Jan  6 15:27:31 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r\n"
        f"<14>Jan  6 15:27:31 cloud-init: 256 {key_mark(kind, name)} root@ip-10-0-0-1 ({short})\r\n"
        "<14>Jan  6 15:27:32 cloud-init: -----END SSH HOST KEY FINGERPRINTS-----\r\n"
        "-----BEGIN SSH HOST KEY KEYS-----\r\n"
        f"{kind} {key_text(kind, name)} root@ip-10-0-0-1\r\n"
        "-----END SSH HOST KEY KEYS-----\r\n"
    )
