"""aws.yaml: what is refused, and that the example is not what is used by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.aws.settings import load_settings
from cluster.errors import ClusterError
from tests.cluster.aws.lab import REGION, REPOSITORY, plan_in


def test_the_example_is_valid_once_the_address_is_ones_own(tmp_path: Path) -> None:
    example = REPOSITORY / "config/aws.example.yaml"
    with pytest.raises(ClusterError, match=r"refused: ssh_from: 203\.0\.113\.7/32 is an example's[^;]*$"):
        load_settings(example)
    own = tmp_path / "aws.yaml"
    own.write_text(example.read_text().replace("203.0.113.7", "8.8.8.8"))
    settings = load_settings(own)
    assert (settings.instance_type, settings.num_instances, settings.price) == ("g5.12xlarge", 2, None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ssh_from": "0.0.0.0/0"}, r"ssh_from: SSH would be open to 0\.0\.0\.0/0"),
        ({"ssh_from": "::/0"}, "ssh_from: SSH would be open to ::/0"),
        ({"ssh_from": "128.0.0.0/1"}, "ssh_from: SSH would be open"),
        ({"ssh_from": "8.8.8.8/24"}, "ssh_from"),
        ({"ssh_from": None}, "ssh_from"),
        ({"num_instances": 0}, "num_instances"),
        ({"name": "Some Name"}, "name"),
        ({"spot": True}, "spot: Extra inputs are not permitted"),
        ({"price": {"usd_per_hour": "-1", "region": REGION, "date": "2026-01-31"}}, r"price\.usd_per_hour"),
        ({"price": {"usd_per_hour": "1", "region": REGION}}, r"price\.date: Field required"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ClusterError, match=told):
        plan_in(tmp_path, **changes)


def test_one_address_needs_no_prefix(tmp_path: Path) -> None:
    assert str(plan_in(tmp_path, ssh_from="8.8.8.8").settings.ssh_from) == "8.8.8.8/32"


def test_no_end_is_a_decision_to_be_written_down(tmp_path: Path) -> None:
    settings_file = plan_in(tmp_path, terminate_after_hours=None).settings_file
    data = yaml.safe_load(settings_file.read_text())
    del data["terminate_after_hours"]
    settings_file.write_text(yaml.safe_dump(data))
    with pytest.raises(ClusterError, match="terminate_after_hours: Field required"):
        load_settings(settings_file)


def test_a_missing_file_names_the_example(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"cannot be read; .*config/aws\.example\.yaml"):
        load_settings(tmp_path / "none.yaml")
