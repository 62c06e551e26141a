"""A plan is read strictly: what cannot be a plan is one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_parsing.errors import ParsingError
from data_parsing.plan import load_plans
from tests.data_parsing.record_files import SyntheticScenario, server_grid, write_plan


def test_plan_in_order_with_unknown_keys(tmp_path: Path) -> None:
    scenarios = server_grid()
    plan = load_plans([write_plan(tmp_path / "plan.json", scenarios)])
    assert [planned.scenario for planned in plan] == [scenario.name for scenario in scenarios]


def test_several_plans_are_one(tmp_path: Path) -> None:
    small, medium = server_grid(), server_grid(sizes=("medium",))
    paths = [write_plan(tmp_path / "a.json", small), write_plan(tmp_path / "b.json", [*small[:2], *medium])]
    assert len(load_plans(paths)) == len(small) + len(medium)


def test_scenario_planned_twice_differently(tmp_path: Path) -> None:
    scenario = SyntheticScenario()
    paths = [
        write_plan(tmp_path / "a.json", [scenario]),
        write_plan(tmp_path / "b.json", [scenario.with_(fingerprint="a" * 64)]),
    ]
    with pytest.raises(ParsingError, match=r"b\.json: scenario .* planned twice"):
        load_plans(paths)


def test_draft_may_be_absent(tmp_path: Path) -> None:
    (planned,) = load_plans([write_plan(tmp_path / "plan.json", [SyntheticScenario(draft=None)])])
    assert planned.draft == ""


def test_settings_of_the_draft_are_no_conditions(tmp_path: Path) -> None:
    settings = {"mode": "tree_auto", "drafters": "ssm.auto.64", "quantisation": "int8", "prompts": "code"}
    scenario = SyntheticScenario(mode="tree_auto", settings=settings)
    (planned,) = load_plans([write_plan(tmp_path / "plan.json", [scenario])])
    assert planned.settings == settings
    assert planned.conditions == {"quantisation": "int8", "prompts": "code"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "beam"}, "mode 'beam' is unknown, allowed: incremental, sequence, tree, tree_auto, transformers"),
        ({"size": "huge"}, "size 'huge' is unknown, allowed: small, medium, large"),
        ({"purpose": "fun"}, "purpose 'fun' is unknown, allowed: measure, functional"),
        ({"purpose": None}, "purpose must be a text that is not empty, received None"),
        ({"batch_size": 0}, "batch_size must be a positive integer, received 0"),
        ({"batch_size": True}, "batch_size must be a positive integer, received True"),
        ({"scenario": "../x"}, "must consist of letters"),
        ({"fingerprint": ""}, "fingerprint must be a text that is not empty"),
        ({"target": 5}, "target must be a text that is not empty, received 5"),
        ({"draft": 5}, "draft must be a text or null, received 5"),
        ({"offload": 5}, "offload must be a text or null, received 5"),
        ({"settings": ["a"]}, "settings must be an object of texts, received "),
        ({"settings": {"a": 1}}, "settings must be an object of texts, received "),
    ],
)
def test_bad_entry(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps([SyntheticScenario().plan_entry() | change]))
    with pytest.raises(ParsingError, match=message) as caught:
        load_plans([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", '"plan"', "[{}]"])
def test_file_that_is_no_plan(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ParsingError, match=r"plan\.json"):
        load_plans([path])


def test_missing_plan(tmp_path: Path) -> None:
    with pytest.raises(ParsingError, match="No such file"):
        load_plans([tmp_path / "plan.json"])
