"""The tags by which everything of a launch is found again."""

from __future__ import annotations

from typing import Any

NAME_TAG = "treespec-cluster"
LAUNCH_TAG = "treespec-launch"


def tag_specifications(name: str, launch: str, *kinds: str) -> list[dict[str, Any]]:
    """Tags for resources of these kinds, given as they are created: nothing exists without them."""
    tags = [{"Key": key, "Value": value} for key, value in ((NAME_TAG, name), (LAUNCH_TAG, launch), ("Name", name))]
    return [{"ResourceType": kind, "Tags": tags} for kind in kinds]


def bearing(name: str) -> list[dict[str, Any]]:
    """A filter for whatever bears the name."""
    return [{"Name": f"tag:{NAME_TAG}", "Values": [name]}]
