"""aws.yaml: what is launched, who may reach it, what it costs. One file, validated as a whole; free of boto3."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cluster.hosts import OwnFolder, Word
from cluster.settings_file import StrictModel, load_yaml

Text = Annotated[str, Field(min_length=1)]
# The largest network that SSH may be open to, as bits of its prefix: a site, never a continent.
MIN_PREFIX = {4: 16, 6: 32}
# RFC 5737 and RFC 3849: what an example shows is nobody's address.
EXAMPLE_NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")


def _narrow(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    shortest = MIN_PREFIX[network.version]
    if network.prefixlen < shortest:
        raise ValueError(
            f"SSH would be open to {network}: give your own address ({network.max_prefixlen} bits),"
            f" or your site's network, of at least /{shortest}"
        )
    examples = (ip_network(text) for text in EXAMPLE_NETWORKS)
    if any(network.version == example.version and network.network_address in example for example in examples):
        raise ValueError(f"{network} is an example's: give the address that AWS sees you under")
    return network


class Image(StrictModel):
    """Which machine image: the newest that matches."""

    name: Text = Field(description="pattern of its name; * and ? stand for other characters")
    owner: Text = Field(description="amazon, self, or the number of the owner's account")


class Price(StrictModel):
    """What one instance costs, as the user has read it from Amazon's price list."""

    usd_per_hour: Decimal = Field(gt=0)
    region: Text
    date: date


class HostSettings(StrictModel):
    """What cluster.yaml says of every host."""

    user: Word = Field(description="the image's login, such as ubuntu")
    key: Path = Field(description="private key that belongs to key_pair")
    interface: Word = Field(description="network interface that ranks talk over")
    slots: int = Field(ge=1, description="ranks per instance: its GPUs")
    work_dir: OwnFolder
    device: Literal["cpu", "cuda"] = "cuda"


class AwsSettings(StrictModel):
    """A launch: machines, network, image, login, price."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,40}$")] = Field(
        description="marks everything that is created; whatever bears it is terminated together"
    )
    profile: Text | None = Field(None, description="profile of the AWS configuration; null: the default")
    region: Text | None = Field(None, description="null: as the profile or AWS_DEFAULT_REGION says")
    availability_zone: Text | None = Field(None, description="null: AWS chooses")
    subnet: Text | None = Field(None, description="null: the default network's")
    instance_type: Text = "g5.12xlarge"
    num_instances: int = Field(2, ge=1)
    image: Image
    root_volume_gib: int = Field(ge=8, description="disk of each instance; deleted with it")
    key_pair: Text = Field(description="name of the key pair at AWS, in the region")
    ssh_from: Annotated[IPv4Network | IPv6Network, AfterValidator(_narrow)] = Field(
        description="addresses that may reach port 22"
    )
    terminate_after_hours: int | None = Field(
        ge=1,
        le=720,
        description="instances switch themselves off, and are gone, so long after they booted; null: never",
    )
    price: Price | None = Field(description="null: the cost is not told")
    hosts: HostSettings


def load_settings(path: Path) -> AwsSettings:
    """Read and validate aws.yaml. Raises ClusterError naming every refused field."""
    return load_yaml(path, AwsSettings, "config/aws.example.yaml")
