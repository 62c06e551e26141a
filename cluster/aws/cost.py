"""What a launch costs, by the price that the user has given; no price is known here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from cluster.aws.settings import AwsSettings
from cluster.errors import ClusterError

CENT = Decimal("0.01")


def check_price(settings: AwsSettings, region: str) -> None:
    """A price holds in its region only. Raises ClusterError."""
    if settings.price is not None and settings.price.region != region:
        raise ClusterError(
            "the price is another region's",
            where="aws settings, price",
            received=f"{settings.price.region}, launching in {region}",
            fix="look the price up for this region, or set price to null",
        )


def cost_per_hour(settings: AwsSettings, region: str) -> str:
    """One line: what all instances cost per hour, and where that number is from."""
    machines = f"{settings.num_instances} x {settings.instance_type} in {region}"
    if settings.price is None:
        return f"cost: not known ({machines}): the settings give no price; AWS's price list does"
    total = settings.num_instances * settings.price.usd_per_hour
    return (
        f"cost: {total} USD per hour ({machines}, {settings.price.usd_per_hour} each by your settings of"
        f" {settings.price.date}); disks, public addresses and traffic come on top"
    )


def cost_so_far(settings: AwsSettings, started: list[datetime], now: datetime) -> str:
    """One line: how long the instances have been running together, and what that comes to."""
    hours = sum((now - moment).total_seconds() for moment in started) / 3600
    told = f"so far: {hours:.2f} instance hours"
    if settings.price is None:
        return told
    return f"{told}, {(Decimal(hours) * settings.price.usd_per_hour).quantize(CENT)} USD by your settings"
