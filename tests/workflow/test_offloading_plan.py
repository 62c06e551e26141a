"""The offloading experiment as planned: placements, names and roles follow from data alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rules.plan_files import Workflow, plan_workflow
from rules.plan_writing import write_plan
from tests.workflow.project import LEFT_OUT, Project
from treespec.errors import TreespecError


@pytest.fixture(autouse=True)
def _inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)


SMALL_GROUPS = {"bits": 4, "group_size": 32}
OFFLOADED = {"offload": "disk", "offload_reserve_mib": 7, "max_tree_nodes": 256}


@pytest.fixture
def offloading(project: Project) -> Project:
    """The offloading experiment on the tiny platform, one size."""

    def place(platform: dict[str, Any]) -> None:
        platform["sizes"]["offloading_small"] = platform["sizes"]["small"] | OFFLOADED
        platform["overrides"]["offloading"] = {"sizes": ["small"], "batch_sizes": [8]}

    project.edit("platforms/tiny.yaml", place)
    return project


def offloading_plan() -> Workflow:
    return plan_workflow({"platform": "tiny"}, ["offloading"])


def offload(project: Project, **changes: Any) -> None:
    project.edit("platforms/tiny.yaml", lambda platform: platform["overrides"]["offloading"].update(changes))


@pytest.mark.usefixtures("offloading")
def test_offloading_names_are_the_artifacts_for_its_own_setting_and_told_for_the_others() -> None:
    jobs = {job.name: [item.config.name for item in job.scenarios] for job in offloading_plan().sweeps["offloading"]}
    own = ["", "-mode_incr_dec", "-mode_tree_specinfer", "-mode_tree_auto"]
    assert jobs == {
        f"offloading-small{weights}": [f"offloading_small_8{mode}{weights}" for mode in own]
        for weights in ("", "-quantisation_int8", "-quantisation_int4")
    }


@pytest.mark.usefixtures("offloading")
def test_a_placement_holds_what_its_role_and_its_variant_say() -> None:
    plain, int8, _ = (job.job.placement for job in offloading_plan().sweeps["offloading"])
    assert (plain.offload, plain.offload_reserve_mib, plain.max_tree_nodes) == ("disk", 7, 256)
    assert plain.converted_models == Path("results/tiny/converted")
    assert plain.target.quantisation is None
    assert int8.target.quantisation is not None and int8.target.quantisation.bits == 8
    assert [draft.quantisation for draft in int8.drafts] == [None], "the draft stays as it is stored"
    (server,) = plan_workflow({"platform": "tiny"}, ["server_gpu"]).sweeps["server_gpu"]
    assert (server.job.placement.offload, server.job.placement.max_tree_nodes) == (None, 64)


@pytest.mark.usefixtures("offloading")
def test_the_automatic_tree_is_the_drafters_of_the_experiment() -> None:
    job = offloading_plan().sweeps["offloading"][0]
    (auto,) = (item.config for item in job.scenarios if item.mode_name == "tree_auto")
    (drafter,) = auto.drafters
    assert drafter.kind == "ssm" and (drafter.tree, drafter.num_nodes, drafter.max_depth) == ("auto", 255, 16)
    assert auto.num_tree_nodes == job.job.placement.max_tree_nodes


def test_every_setting_of_an_offloading_scenario_is_named_in_a_fixed_order(offloading: Project) -> None:
    drafter = {"kind": "ssm", "tree": "auto", "num_nodes": 32}
    offload(
        offloading,
        modes={"tree_auto": {"mode": "tree", "drafters": [drafter]}},
        variants={
            "resident": {"offload": False},
            "int4": {"offload": True, "quantisation": {"bits": 4, "group_size": 32}},
        },
        max_new_tokens=16,
    )
    names = {
        item.config.name
        for job in offloading_plan().sweeps["offloading"]
        for item in job.scenarios
        if item.mode_name == "tree_auto"
    }
    assert names == {
        f"offloading_small_8-mode_tree_auto-drafters_ssm.auto.32{weights}-max_new_tokens_16"
        for weights in ("", "-quantisation_int8", "-quantisation_int4.32", "-offload_false")
    }


def test_a_resident_variant_streams_nothing(offloading: Project) -> None:
    offload(offloading, variants={"resident": {"offload": False}})
    resident = offloading_plan().sweeps["offloading"][-1]
    assert resident.name == "offloading-small-offload_false"
    placement = resident.job.placement
    assert (placement.offload, placement.offload_reserve_mib, placement.max_tree_nodes) == (None, None, 256)


def test_the_plan_tells_parsing_what_a_scenario_is(offloading: Project) -> None:
    write_plan(offloading_plan())
    rows = {row["scenario"]: row for row in offloading.plan("offloading")}
    row = rows["offloading_small_8-mode_tree_auto-quantisation_int8"]
    assert (row["mode"], row["mode_name"], row["offload"], row["quantisation"]) == (
        "tree_auto",
        "tree_auto",
        "disk",
        "int8",
    )
    assert row["settings"] == {"mode": "tree_auto", "quantisation": "int8"}
    assert row["draft"] == "draft"
    own = rows["offloading_small_8"]
    assert (own["mode"], own["settings"], own["quantisation"]) == ("sequence", {}, None)
    assert rows["offloading_small_8-mode_incr_dec"]["draft"] is None


@pytest.mark.usefixtures("offloading")
def test_tables_of_every_experiment_are_named() -> None:
    tables = plan_workflow({"platform": "tiny"}).tables
    with_sizes = {"server_gpu": ("server", "server_small"), "offloading": ("offloading", "offloading_small")}
    assert tables == {name: (name,) for name in LEFT_OUT} | with_sizes


def test_an_experiment_that_is_left_out_has_a_table_and_no_job(project: Project) -> None:
    workflow = plan_workflow({"platform": "tiny"})
    assert (workflow.sweeps["offloading"], workflow.tables["offloading"]) == ((), ("offloading",))
    write_plan(workflow)
    assert project.plan("offloading") == []


def drop_streaming(platform: dict[str, Any]) -> None:
    for key in ("offload", "offload_reserve_mib"):
        del platform["sizes"]["offloading_small"][key]


def misspell_size(platform: dict[str, Any]) -> None:
    platform["sizes"]["offlaoding_large"] = platform["sizes"]["small"]


def drop_budget(platform: dict[str, Any]) -> None:
    del platform["sizes"]["offloading_small"]["offload_reserve_mib"]


def drop_tree_nodes(platform: dict[str, Any]) -> None:
    del platform["sizes"]["offloading_small"]["max_tree_nodes"]


def ask_for_a_peer(platform: dict[str, Any]) -> None:
    platform["overrides"]["offloading"]["peers"] = ["transformers"]


def ask_for_a_peer_of_rounded_weights(platform: dict[str, Any]) -> None:
    variants = {name: {"quantisation": {"bits": bits}} for name, bits in (("int8", 8), ("int4", 4))}
    platform["overrides"]["server_gpu"]["variants"] = variants


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_streaming, r"nowhere to stream weights from; .*sizes.offloading_small; .*which offloading needs"),
        (drop_budget, r"offload 'disk' with offload_reserve_mib None; allowed: both, or neither"),
        (drop_tree_nodes, r"its trees can have 256 nodes, allowed: max_tree_nodes = 64"),
        (
            misspell_size,
            r"a size that no experiment has; .*received: \['offlaoding_large'\]; allowed: .*large",
        ),
        (ask_for_a_peer, r"transformers streams no weights; .*received: offload: disk; fix: .*peers: \[\]"),
        (ask_for_a_peer_of_rounded_weights, r"serves weights as they are stored; .*received: quantisation: int8"),
    ],
)
def test_what_cannot_be_streamed_is_refused(
    offloading: Project, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    offloading.edit("platforms/tiny.yaml", change)
    with pytest.raises(TreespecError, match=message):
        plan_workflow({"platform": "tiny"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name_form": "all"},
            r"name_form: allowed: a text with some of \{size\}, \{batch_size\}, \{mode\}, \{prompts\}",
        ),
        ({"budget_minutes": 0}, r"budget_minutes: Input should be greater than 0 \(received 0\)"),
        ({"name_form": "{size}_{batch_size}_{dtype}"}, r"name_form: allowed: a text with"),
        ({"variants": {"a": {}, "b": {"offload": False}}}, r"variants 'a' and 'b' are the same"),
        ({"variants": {"int3": {"quantisation": {"bits": 3}}}}, r"variants.int3.quantisation.bits"),
    ],
)
def test_an_experiment_that_names_nothing_apart_is_refused(
    project: Project, change: dict[str, Any], message: str
) -> None:
    project.edit("experiments/offloading.yaml", lambda sweep: sweep.update(change))
    with pytest.raises(TreespecError, match=message):
        plan_workflow({"platform": "tiny"})


def test_what_a_name_form_does_not_tell_is_appended(offloading: Project) -> None:
    offloading.edit("experiments/offloading.yaml", lambda sweep: sweep.update(name_form="{mode}"))
    offload(offloading, batch_sizes=[1, 8])
    plain = offloading_plan().sweeps["offloading"][0]
    modes = ("sequence_specinfer", "incr_dec", "tree_specinfer", "tree_auto")
    assert [item.config.name for item in plain.scenarios] == [
        f"offloading_{mode}{batch_size}" for batch_size in ("", "-batch_size_8") for mode in modes
    ]


def test_a_variant_that_is_null_is_left_out(offloading: Project) -> None:
    offload(offloading, variants={"int8": None, "int4": None})
    assert [job.name for job in offloading_plan().sweeps["offloading"]] == ["offloading-small"]
