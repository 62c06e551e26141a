"""Fingerprints change with everything that makes another experiment, and with nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.tests.checkpoints import TinyLlama, write_checkpoint
from treespec.config import (
    Inflation,
    ModelRef,
    NgramDrafting,
    Placement,
    Quantisation,
    RunConfig,
    Sampling,
    Scenario,
    fingerprint,
    fingerprints,
)
from treespec.errors import CheckpointError, InputFileError

TINY = TinyLlama(hidden_size=16, ffn_size=16, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8)

PLACEMENT_CHANGES: dict[str, Any] = {
    "micro_batch_tokens": 8,
    "dtype": "bfloat16",
    "device": "cuda",
    "num_threads": 3,
    "cache_fraction": 0.5,
    "max_sequence_length": 200,
    "max_tree_nodes": 65,
    "tensor_parallel_degree": 2,
    "pipeline_parallel_degree": 2,
    "layer_split": (2,),
    "draft_placement": "replicated",
    "offload": "disk",
    "offload_reserve_mib": 5.0,
    "plugins": (Path(__file__),),
}
PLACEMENT_NOT_IDENTITY: dict[str, Any] = {
    "name": "other",
    "rank_timeout_s": 5.0,
    "load_timeout_s": 5.0,
    "converted_models": Path("elsewhere"),
    "measure_costs": True,
}
SCENARIO_CHANGES: dict[str, Any] = {
    "name": "other",
    "mode": "sequence",
    "expansion": (1, 1, 1),
    "drafters": (NgramDrafting(kind="ngram"),),
    "verifier": "sampler_match",
    "tree_layout": "sequences",
    "sampling": Sampling(temperature=0.5),
    "num_prompts": 1,
    "batch_composition": "repeated",
    "max_requests_per_batch": 2,
    "max_tokens_per_batch": 100,
    "max_new_tokens": 7,
    "ignore_eos": True,
    "stop_strings": ("x",),
    "num_repeats": 2,
}


@pytest.fixture
def job(tmp_path: Path) -> RunConfig:
    """An incremental and a tree scenario over two small folders."""
    (tmp_path / "prompts.json").write_text('["one", "two"]')
    target = write_checkpoint(tmp_path / "models" / "target", TINY)
    draft = write_checkpoint(tmp_path / "models" / "draft", TINY.with_(seed=1))
    shared = {"prompts": tmp_path / "prompts.json", "max_requests_per_batch": 1}
    return RunConfig(
        placement=Placement(name="small", target=ModelRef(path=target), drafts=(ModelRef(path=draft),)),
        scenarios=(
            Scenario(name="plain", mode="incremental", **shared),
            Scenario(name="tree", mode="tree", expansion=(2, 1), **shared),
        ),
    )


def with_placement(job: RunConfig, **changes: Any) -> RunConfig:
    return job.model_copy(update={"placement": job.placement.model_copy(update=changes)})


def with_scenario(job: RunConfig, index: int, **changes: Any) -> RunConfig:
    scenarios = list(job.scenarios)
    scenarios[index] = scenarios[index].model_copy(update=changes)
    return job.model_copy(update={"scenarios": tuple(scenarios)})


def prints(job: RunConfig) -> list[str]:
    found = fingerprints(job)
    assert all(len(value) == 64 for value in found.values())
    return [found[scenario.name] for scenario in job.scenarios]


def test_same_job_has_the_same_fingerprints(job: RunConfig) -> None:
    assert prints(job) == prints(job)
    assert len(set(prints(job))) == 2


@pytest.mark.parametrize("field", Placement.model_fields)
def test_every_field_of_a_placement_is_identity_or_named_as_none(job: RunConfig, field: str) -> None:
    if field in PLACEMENT_NOT_IDENTITY:
        assert prints(with_placement(job, **{field: PLACEMENT_NOT_IDENTITY[field]})) == prints(job)
    elif field not in ("target", "drafts"):  # below
        assert not set(prints(with_placement(job, **{field: PLACEMENT_CHANGES[field]}))) & set(prints(job))


@pytest.mark.parametrize("field", Scenario.model_fields)
def test_every_field_of_a_scenario_is_identity(job: RunConfig, field: str) -> None:
    if field != "prompts":  # below: by content
        plain, tree = prints(with_scenario(job, 0, **{field: SCENARIO_CHANGES[field]}))
        assert plain != prints(job)[0]
        assert tree == prints(job)[1]


def test_words_younger_than_the_first_records_leave_those_current(
    job: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[dict[str, Any]] = []
    monkeypatch.setattr(fingerprint, "_digest", lambda identity: str(hashed.append(identity) or len(hashed)))
    for layout in ("tree", "sequences"):
        fingerprints(with_scenario(job, 1, tree_layout=layout))
    assert ["tree_layout" in identity["scenario"] for identity in hashed] == [False, False, False, True]
    assert all("verifier" in identity["scenario"] for identity in hashed)
    assert not any("measure_costs" in identity["placement"] for identity in hashed)


MODEL_CHANGES: list[dict[str, Any]] = [
    {"label": "other"},
    {"inflation": Inflation(num_layers=2)},
    {"quantisation": Quantisation(bits=8)},
]


@pytest.mark.parametrize("change", MODEL_CHANGES, ids=str)
def test_label_inflation_and_quantisation_of_a_model_are_identity(job: RunConfig, change: dict[str, Any]) -> None:
    target = job.placement.target.model_copy(update=change)
    assert not set(prints(with_placement(job, target=target))) & set(prints(job))


@pytest.mark.parametrize(
    ("what", "plain", "field", "value"),
    [
        ("inflation", Inflation(num_layers=2), "width_factor", 4),
        ("inflation", Inflation(num_layers=2), "num_layers", 3),
        ("quantisation", Quantisation(bits=8), "bits", 4),
        ("quantisation", Quantisation(bits=8), "group_size", 32),
    ],
)
def test_every_field_of_what_is_done_to_a_model_is_identity(
    job: RunConfig, what: str, plain: Inflation | Quantisation, field: str, value: int
) -> None:
    seen = []
    for done in (plain, plain.model_copy(update={field: value})):
        target = job.placement.target.model_copy(update={what: done})
        seen += prints(with_placement(job, target=target))
    assert len(set(seen)) == 4
    assert set(Inflation.model_fields) | set(Quantisation.model_fields) == {
        "width_factor",
        "num_layers",
        "bits",
        "group_size",
    }, "a new field needs a case here"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_file_of_the_target_is_identity(job: RunConfig, name: str) -> None:
    before = prints(job)
    append_space(job.placement.target.path / name)
    assert not set(prints(job)) & set(before)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_draft_is_identity_of_scenarios_that_speculate_and_of_no_other(job: RunConfig, name: str) -> None:
    plain, tree = prints(job)
    append_space(job.placement.drafts[0].path / name)
    assert prints(job)[0] == plain
    assert prints(job)[1] != tree


def test_new_generation_settings_are_identity(job: RunConfig) -> None:
    before = prints(job)
    (job.placement.target.path / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert not set(prints(job)) & set(before)


def test_prompts_are_identity_by_content(job: RunConfig, tmp_path: Path) -> None:
    before = prints(job)
    copy = shutil.copy(tmp_path / "prompts.json", tmp_path / "copy.json")
    assert prints(with_scenario(job, 0, prompts=Path(copy))) == before
    (tmp_path / "prompts.json").write_text('["one", "three"]')
    assert not set(prints(job)) & set(before)


def test_record_epoch_is_identity(job: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prints(job)
    monkeypatch.setattr(fingerprint, "RECORD_EPOCH", fingerprint.RECORD_EPOCH + 1)
    assert not set(prints(job)) & set(before)


def test_paths_are_no_identity(job: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "models", tmp_path / "elsewhere" / "deeper")
    moved = with_placement(
        job,
        target=ModelRef(path=tmp_path / "elsewhere" / "deeper" / "target"),
        drafts=(ModelRef(path=tmp_path / "elsewhere" / "deeper" / "draft"),),
    )
    assert prints(moved) == prints(job)


def test_other_scenarios_of_a_job_are_no_identity(job: RunConfig) -> None:
    alone = job.model_copy(update={"scenarios": job.scenarios[1:]})
    assert prints(alone) == prints(job)[1:]


def test_readme_and_model_card_are_no_identity(job: RunConfig) -> None:
    before = prints(job)
    (job.placement.target.path / "README.md").write_text("words")
    assert prints(job) == before


def test_missing_files_are_named(job: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.json"):
        fingerprints(with_scenario(job, 0, prompts=tmp_path / "gone.json"))
    with pytest.raises(CheckpointError, match=r"no such folder"):
        fingerprints(with_placement(job, target=ModelRef(path=tmp_path / "gone")))
    (job.placement.target.path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors file"):
        fingerprints(job)


def test_a_model_to_be_had_from_the_hub_is_planned_before_it_is_there(job: RunConfig, tmp_path: Path) -> None:
    def with_target(path: Path, hub_id: str) -> RunConfig:
        return with_placement(job, target=ModelRef(path=path, hub_id=hub_id, label="target"))

    there, gone = job.placement.target.path, tmp_path / "gone"
    assert prints(with_target(there, "a/one")) == prints(with_target(there, "a/two")) == prints(job)
    absent = [prints(job), prints(with_target(gone, "a/one")), prints(with_target(gone, "a/two"))]
    assert len({value for values in absent for value in values}) == 6
    gone.mkdir()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors file"):
        fingerprints(with_target(gone, "a/one"))


def append_space(path: Path) -> None:
    """Another content; JSON stays the same JSON."""
    with open(path, "ab") as file:
        file.write(b" ")


def test_fingerprints_do_not_depend_on_the_process(job: RunConfig) -> None:
    """Sets and dictionaries must not leak their order into the identity."""
    dumped = json.loads(job.model_dump_json())
    dumped["placement"] = dict(reversed(dumped["placement"].items()))
    dumped["scenarios"] = [dict(reversed(scenario.items())) for scenario in dumped["scenarios"]]
    assert prints(RunConfig.model_validate(dumped)) == prints(job)
