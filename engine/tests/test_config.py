"""Configurations that cannot be run as written are refused with the field, the value and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treespec.config import load_run_config, validate_run_config
from treespec.errors import ConfigError


def plain_config() -> dict[str, Any]:
    """A job that is valid as it stands."""
    return {
        "placement": {"name": "small", "target": {"path": "target"}, "drafts": [{"path": "draft"}]},
        "scenarios": [
            {"name": "a", "mode": "incremental", "prompts": "p.json", "max_requests_per_batch": 2},
            {"name": "b", "mode": "tree", "expansion": [2, 1], "prompts": "p.json", "max_requests_per_batch": 2},
        ],
    }


def changed(where: str, value: object) -> dict[str, Any]:
    """The plain job with one field set; ``where`` is a path such as ``scenarios.0.mode``."""
    config = plain_config()
    *parents, last = where.split(".")
    place: Any = config
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return config


def refusal(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_run_config(data, where="job.yaml")
    message = str(caught.value)
    assert message.startswith("configuration refused: ")
    assert message.endswith("; where: job.yaml")
    assert "\n" not in message
    return message


def test_plain_job_is_accepted() -> None:
    config = validate_run_config(plain_config(), where="job.yaml")
    assert [scenario.num_tree_nodes for scenario in config.scenarios] == [1, 5]
    assert config.placement.target.name == "target"


def test_one_mistake_in_several_places_is_told_once() -> None:
    data = plain_config()
    for scenario in data["scenarios"]:
        scenario["num_prompts"] = "many"
    message = refusal(data)
    assert message.count("valid integer") == 1
    assert "scenarios.0.num_prompts, scenarios.1.num_prompts: Input should be a valid integer" in message


@pytest.mark.parametrize(
    "where",
    [
        "surprise",
        "placement.surprise",
        "placement.target.surprise",
        "scenarios.0.surprise",
        "scenarios.1.max_request_per_batch",
    ],
)
def test_unknown_keys_are_refused_by_name(where: str) -> None:
    message = refusal(changed(where, 1))
    place, _, key = where.rpartition(".")
    assert f"{place or '(top level)'}: unknown key '{key}'; allowed: " in message


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("scenarios.0.mode", "speculative", "'incremental', 'sequence' or 'tree'"),
        ("placement.cache_fraction", True, "cache_fraction is true; allowed: a number"),
        ("placement.num_threads", True, "num_threads is true; allowed: a number"),
        ("scenarios.0.num_repeats", False, "num_repeats is false; allowed: a number"),
        ("scenarios.0.mode", "tree", "mode 'tree' does not fit expansion [], which is incremental"),
        ("scenarios.1.mode", "sequence", "mode 'sequence' does not fit expansion [2, 1], which is tree"),
        ("scenarios.1.expansion", [1, 1], "mode 'tree' does not fit expansion [1, 1], which is sequence"),
        ("scenarios.1.expansion", [2, 0], "expansion must hold positive widths, received [2, 0]"),
        ("scenarios.1.expansion", [4, 4, 4], "its trees can have 85 nodes, allowed: max_tree_nodes = 64"),
        ("scenarios.0.tree_layout", "sequences", "with nothing drafted; allowed: 'tree' in mode incremental"),
        ("scenarios.1.tree_layout", "paths", "'tree' or 'sequences'"),
        ("scenarios.1.name", "a", "scenario names must be unique, received twice: ['a']"),
        ("scenarios.1.name", "a/b", "scenarios.1.name"),
        ("scenarios.1.name", "", "scenarios.1.name"),
        ("scenarios.0.max_requests_per_batch", 0, "greater than or equal to 1 (received 0)"),
        ("scenarios.0.max_requests_per_batch", "two", "(received 'two')"),
        ("scenarios.0.max_tokens_per_batch", 1, "allowed: at least max_requests_per_batch = 2"),
        ("scenarios.0.max_new_tokens", 0, "greater than or equal to 1 (received 0)"),
        ("scenarios.0.max_new_tokens", 256, "allowed: below max_sequence_length = 256"),
        ("scenarios.0.num_repeats", 0, "greater than or equal to 1 (received 0)"),
        ("scenarios.0.num_prompts", 0, "greater than or equal to 1 (received 0)"),
        ("scenarios.0.stop_strings", [""], "stop_strings must not hold an empty string"),
        ("scenarios", [], "scenarios"),
        ("placement.drafts", [], "scenario 'b' speculates but placement 'small' names no draft model"),
        ("placement.max_tree_nodes", 4, "its trees can have 5 nodes, allowed: max_tree_nodes = 4"),
        ("placement.max_tree_nodes", 5000, "less than or equal to 1024 (received 5000)"),
        ("placement.dtype", "float64", "'float32', 'bfloat16' or 'float16'"),
        ("placement.device", "tpu", "'cpu' or 'cuda'"),
        ("placement.cache_fraction", 1.0, "less than 1"),
        ("placement.cache_fraction", 0, "greater than 0"),
        ("placement.num_threads", 0, "greater than or equal to 1"),
        ("placement.tensor_parallel_degree", 0, "greater than or equal to 1 (received 0)"),
        ("placement.pipeline_parallel_degree", 1.5, "placement.pipeline_parallel_degree"),
        ("placement.target", {"path": "t", "hub_id": "llama-7b"}, "placement.target.hub_id"),
        ("placement.target", {"path": "t", "inflation": {"width_factor": 2}}, "1, 4 or 16 (received 2)"),
        ("placement.target", {}, "placement.target.path: Field required"),
        ("placement", None, "placement"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(where: str, value: object, told: str) -> None:
    assert told in refusal(changed(where, value))


def test_a_batch_that_its_prompts_never_fill_is_refused() -> None:
    config = changed("scenarios.1.num_prompts", 1)
    message = refusal(config)
    assert "scenario 'b': fewer prompts than the batch size" in message
    assert "received: num_prompts 1 for max_requests_per_batch 2; fix: more prompts, a smaller batch size" in message
    config["scenarios"][1]["batch_composition"] = "repeated"
    assert validate_run_config(config, where="job.yaml").scenarios[1].num_prompts == 1


def test_sequences_need_slots_for_all_their_tokens() -> None:
    config = changed("scenarios.1.tree_layout", "sequences")
    config["placement"]["max_tree_nodes"] = 6
    assert validate_run_config(config, where="job.yaml").scenarios[1].num_target_slots == 6  # two of three
    config["placement"]["max_tree_nodes"] = 5
    assert "can have 6 tokens on all their paths together, allowed: max_tree_nodes = 5" in refusal(config)


def test_a_chain_may_be_verified_as_a_sequence() -> None:
    config = changed("scenarios.1.tree_layout", "sequences")
    config["scenarios"][1] |= {"mode": "sequence", "expansion": [1, 1, 1]}
    scenario = validate_run_config(config, where="job.yaml").scenarios[1]
    assert scenario.num_target_slots == scenario.num_tree_nodes == 4


def test_a_tree_chosen_by_what_trees_cost_is_not_verified_as_sequences() -> None:
    config = changed("scenarios.1.tree_layout", "sequences")
    config["scenarios"][1] |= {"expansion": [], "drafters": [{"kind": "ssm", "tree": "auto", "num_nodes": 4}]}
    assert "tree_layout 'sequences' with tree 'auto'" in refusal(config)


@pytest.mark.parametrize("data", [None, [], "job", 3], ids=repr)
def test_what_is_no_mapping_is_refused(data: object) -> None:
    assert "(top level)" in refusal(data)


def test_every_refused_field_is_told_at_once() -> None:
    config = changed("scenarios.0.max_requests_per_batch", 0)
    config["placement"]["surprise"] = 1
    message = refusal(config)
    assert "placement: unknown key 'surprise'" in message
    assert "scenarios.0.max_requests_per_batch" in message


def test_job_may_be_yaml_or_json(tmp_path: Path) -> None:
    as_json, as_yaml = tmp_path / "job.json", tmp_path / "job.yaml"
    as_json.write_text(json.dumps(plain_config()))
    as_yaml.write_text(
        "placement: {name: small, target: {path: target}, drafts: [{path: draft}]}\n"
        "scenarios:\n"
        "  - {name: a, mode: incremental, prompts: p.json, max_requests_per_batch: 2}\n"
        "  - {name: b, mode: tree, expansion: [2, 1], prompts: p.json, max_requests_per_batch: 2}\n"
    )
    assert load_run_config(as_json) == load_run_config(as_yaml)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"placement: [1\nscenarios: {", "job file is not valid YAML"),
        (b"\xff\xfe\xfa", "job file is not valid YAML"),
        (b"", "configuration refused: (top level)"),
        (None, "job file cannot be read"),
    ],
    ids=["broken", "not text", "empty", "missing"],
)
def test_job_files_that_cannot_be_read_are_one_line(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        load_run_config(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


def test_configurations_cannot_be_changed() -> None:
    config = validate_run_config(plain_config(), where="job.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.placement.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("reserve", [0, -1, float("inf"), float("nan"), "much"])
def test_a_budget_is_a_positive_number(reserve: object) -> None:
    config = plain_config()
    config["placement"] |= {"offload": "disk", "offload_reserve_mib": reserve}
    with pytest.raises(ConfigError, match="offload_reserve_mib"):
        validate_run_config(config, "job")


@pytest.mark.parametrize("settings", [{"offload": "disk"}, {"offload_reserve_mib": 5}])
def test_offloading_and_its_budget_come_together(settings: dict[str, object]) -> None:
    config = plain_config()
    config["placement"] |= settings
    with pytest.raises(ConfigError, match="allowed: both, or neither"):
        validate_run_config(config, "job")
