"""A plan is read strictly: what cannot be a plan is one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_parsing.errors import ParsingError
from data_parsing.plans.plan import PlannedScenario, load_plans
from data_parsing.plans.plan_drafting import PlannedDrafting
from tests.data_parsing.record_files import (
    AUTO_TREE,
    PEER,
    SyntheticScenario,
    offloading_grid,
    server_grid,
    write_plan,
    write_plans,
)


def test_plan_in_order_with_unknown_keys(tmp_path: Path) -> None:
    scenarios = server_grid()
    plan = load_plans([write_plan(tmp_path / "plan.json", scenarios)])
    assert plan.tables == ("server",)
    assert [planned.scenario for planned in plan.scenarios] == [scenario.name for scenario in scenarios]


def test_several_plans_are_one(tmp_path: Path) -> None:
    small, medium = server_grid(), server_grid(sizes=("medium",))
    paths = [write_plan(tmp_path / "a.json", small), write_plan(tmp_path / "b.json", [*small[:2], *medium])]
    assert len(load_plans(paths).scenarios) == len(small) + len(medium)


def test_scenario_planned_twice_differently(tmp_path: Path) -> None:
    scenario = SyntheticScenario()
    paths = [
        write_plan(tmp_path / "a.json", [scenario]),
        write_plan(tmp_path / "b.json", [scenario.with_(fingerprint="a" * 64)]),
    ]
    with pytest.raises(ParsingError, match=r"b\.json: scenario .* planned twice"):
        load_plans(paths)


def test_draft_may_be_absent(tmp_path: Path) -> None:
    (planned,) = load_plans([write_plan(tmp_path / "plan.json", [SyntheticScenario(draft=None)])]).scenarios
    assert planned.draft == ""


def load_one(tmp_path: Path, scenario: SyntheticScenario, **changes: Any) -> PlannedScenario:
    """The scenario as read from a plan, with other entries where given."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"table": scenario.table, "scenarios": [scenario.plan_entry() | changes]}))
    (planned,) = load_plans([path]).scenarios
    return planned


def test_tables_are_those_of_the_plans_even_without_scenarios(tmp_path: Path) -> None:
    tables = ("server", "tree_width", "offloading")
    plan = load_plans(write_plans(tmp_path, offloading_grid(), tables))
    assert plan.tables == tables
    assert {planned.table for planned in plan.scenarios} == {"offloading"}


def test_modes_are_free_outside_the_artifacts_two_experiments(tmp_path: Path) -> None:
    scenario = SyntheticScenario("greedy_width_3_third", experiment="tree_width", expansion=(1, 1, 3, 1))
    assert load_one(tmp_path, scenario).mode == "greedy_width_3_third"
    with pytest.raises(ParsingError, match="mode 'greedy_width_3_third' is unknown"):
        load_one(tmp_path, scenario.with_(experiment="offloading"))


CHAIN = {"kind": "ssm", "tree": "expansion", "expansion": [1, 1], "selection": "iid", "model": 1}
NGRAM = {"kind": "ngram", "num_tokens": 8}


@pytest.mark.parametrize(
    ("drafting", "expected"),
    [
        ({"expansion": [], "drafters": []}, PlannedDrafting()),
        ({}, PlannedDrafting(1, (2, 1, 1, 1), "top_k", 0)),
        ({"expansion": [], "drafters": [CHAIN]}, PlannedDrafting(1, (1, 1), "iid", 1)),
        ({"expansion": [], "drafters": [AUTO_TREE]}, PlannedDrafting(1, (), "top_k", 0, is_planned_by_rank=True)),
        ({"expansion": [], "drafters": [AUTO_TREE | {"tree": "dynamic"}]}, PlannedDrafting(1, (), "top_k", 0)),
        ({"expansion": [], "drafters": [NGRAM]}, PlannedDrafting(1)),
        ({"expansion": [], "drafters": [CHAIN, NGRAM]}, PlannedDrafting(2)),
    ],
)
def test_drafting_by_an_expansion_or_by_drafters(
    tmp_path: Path, drafting: dict[str, Any], expected: PlannedDrafting
) -> None:
    assert load_one(tmp_path, SyntheticScenario("tree"), **drafting).drafting == expected


@pytest.mark.parametrize(
    ("expansion", "width", "step", "levels"),
    [
        ((), None, None, ()),
        ((1, 1), 1, None, (1, 1)),
        ((1, 1, 3, 1), 3, 3, (1, 1, 3, 3)),
        ((4, 2), 4, 1, (4, 8)),
    ],
)
def test_width_and_step_of_an_expansion(
    expansion: tuple[int, ...], width: int | None, step: int | None, levels: tuple[int, ...]
) -> None:
    drafting = PlannedDrafting(1, expansion)
    assert (drafting.tree_width, drafting.branching_step, drafting.level_sizes) == (width, step, levels)


@pytest.mark.parametrize(
    ("sampling", "decoding"), [({"temperature": 0}, "greedy"), ({"temperature": 0.7}, "stochastic"), (None, "")]
)
def test_decoding_is_told_by_the_temperature(tmp_path: Path, sampling: Any, decoding: str) -> None:
    assert load_one(tmp_path, SyntheticScenario(), sampling=sampling).decoding == decoding


def test_what_drafts_nothing_is_incremental_but_for_third_parties(tmp_path: Path) -> None:
    modes = ("incremental", PEER, "tree", "tree_auto")
    planned = {mode: load_one(tmp_path, SyntheticScenario(mode)) for mode in modes}
    assert [planned[mode].is_incremental for mode in modes] == [True, False, False, False]
    assert [planned[mode].drafts for mode in modes] == [False, False, True, True]
    assert load_one(tmp_path, SyntheticScenario("stochastic_incr", experiment="tree_width")).is_incremental


@pytest.mark.parametrize(
    "change",
    [
        *({key: "x"} for key in ("placement", "target", "offload", "quantisation", "prompts", "prompt_set", "dtype")),
        *({"max_new_tokens": 7}, {"ignore_eos": True}, {"stop_strings": ["x"]}, {"max_tokens_per_batch": 9}),
        *({"sampling": {"temperature": 0.5}}, {"batch_composition": "repeated"}),
    ],
)
def test_what_is_asked_of_which_models_are_conditions(tmp_path: Path, change: dict[str, Any]) -> None:
    scenario = SyntheticScenario("tree")
    assert load_one(tmp_path, scenario, **change).conditions != load_one(tmp_path, scenario).conditions


def test_how_it_is_drafted_is_no_condition(tmp_path: Path) -> None:
    incremental = load_one(tmp_path, SyntheticScenario())
    other = {"mode": "tree_auto", "drafters": "ssm.auto.64", "verifier": "mss", "tree_layout": "sequences"}
    tree = SyntheticScenario("tree_auto", settings=other, verifier="mss", tree_layout="sequences", draft="other")
    planned = load_one(tmp_path, tree, num_prompts=3, num_repeats=9)
    assert planned.settings == other
    assert planned.conditions == incremental.conditions


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
        ({"prompt_set": 5}, "prompt_set must be a text or null, received 5"),
        ({"expansion": [0]}, "expansion must be a list of positive integers, received "),
        ({"expansion": "1.1"}, "expansion must be a list of positive integers, received "),
        ({"drafters": [5]}, "drafters must be a list of objects, received "),
        ({"drafters": [{"selection": 5}]}, "a drafter's selection must be a text and its model a number, received "),
        ({"drafters": [{"expansion": [True]}]}, "expansion must be a list of positive integers, received "),
        ({"sampling": []}, "sampling must have a temperature from 0, received "),
        ({"sampling": {"temperature": -1}}, "sampling must have a temperature from 0, received "),
    ],
)
def test_bad_entry(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"table": "server", "scenarios": [SyntheticScenario().plan_entry() | change]}))
    with pytest.raises(ParsingError, match=message) as caught:
        load_plans([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "{}", "[]", '"plan"', "[{}]", '{"table": "server"}', '{"table": "server", "scenarios": {}}'),
        *('{"scenarios": []}', '{"table": "../x", "scenarios": []}', '{"table": "server", "scenarios": [1]}'),
    ],
)
def test_file_that_is_no_plan(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ParsingError, match=r"plan\.json"):
        load_plans([path])


def test_missing_plan(tmp_path: Path) -> None:
    with pytest.raises(ParsingError, match="No such file"):
        load_plans([tmp_path / "plan.json"])
