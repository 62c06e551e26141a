"""The planner: names, fingerprints and markers follow from the configuration, and nothing heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rules.plan_files import Workflow, plan_workflow
from rules.plan_writing import write_plan
from rules.platforms import read_yaml
from rules.schema import schema_texts
from tests.workflow.project import REPOSITORY, Project
from treespec.errors import ConfigError, TreespecError


@pytest.fixture(autouse=True)
def _inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)


def plan() -> Workflow:
    return plan_workflow({"platform": "tiny"}, ["server_gpu"])


def names(workflow: Workflow) -> list[str]:
    return [scenario.config.name for placement in workflow.sweeps["server_gpu"] for scenario in placement.scenarios]


def marker() -> str:
    workflow = plan()
    return workflow.marker(workflow.sweeps["server_gpu"][0])


def override(project: Project, **changes: Any) -> None:
    project.edit("platforms/tiny.yaml", lambda platform: platform["overrides"]["server_gpu"].update(changes))


def test_names_are_the_artifacts() -> None:
    assert names(plan()) == [
        f"server_small-{batch_size}_batchsize-{mode}"
        for batch_size in (1, 2)
        for mode in ("incr_dec", "sequence_specinfer", "tree_specinfer")
    ]


def test_settings_that_change_what_is_measured_are_named_in_a_fixed_order(project: Project) -> None:
    mode = {"mode": "tree", "expansion": [3, 1, 1]}
    override(project, max_new_tokens=16, ignore_eos=False, modes={"tree_specinfer": mode}, batch_sizes=[1])
    assert names(plan()) == [
        "server_small-1_batchsize-incr_dec-max_new_tokens_16-ignore_eos_false",
        "server_small-1_batchsize-sequence_specinfer-max_new_tokens_16-ignore_eos_false",
        "server_small-1_batchsize-tree_specinfer-expansion_3.1.1-max_new_tokens_16-ignore_eos_false",
    ]


def test_how_tokens_are_chosen_and_verified_is_named(project: Project) -> None:
    drawn = {"kind": "ssm", "expansion": [2, 1], "selection": "iid"}
    tree = {"mode": "tree", "drafters": [drawn], "verifier": "mss", "sampling": {"temperature": 0.8, "seed": 3}}
    rows = {"mode": "tree", "expansion": [1, 1, 3, 1, 1, 1, 1, 1], "tree_layout": "sequences"}
    modes = {"incr_dec": None, "sequence_specinfer": None, "tree_specinfer": tree, "rows": rows}
    override(project, modes=modes, batch_sizes=[1], peers=[])
    told = "-expansion_none-drafters_ssm.2.1.iid-verifier_mss-sampling_temperature.0.8.seed.3"
    assert names(plan()) == [
        "server_small-1_batchsize-tree_specinfer" + told,
        "server_small-1_batchsize-rows",
    ]
    (placement,) = plan().sweeps["server_gpu"]
    told = [(item.verifier, item.sampling.temperature, item.tree_layout) for item in placement.job.scenarios]
    assert told == [("mss", 0.8, "tree"), ("auto", 0.0, "sequences")]


def test_every_prompt_set_is_a_part_of_the_grid(project: Project) -> None:
    project.edit("platforms/tiny.yaml", lambda data: data["prompts"].update(piqa="prompts/few.json"))
    override(project, prompts=["piqa", "chatgpt"], batch_sizes=[1])
    modes = ("incr_dec", "sequence_specinfer", "tree_specinfer")
    assert names(plan()) == [
        f"server_small-1_batchsize-{mode}{prompts}" for prompts in ("-prompts_piqa", "") for mode in modes
    ]
    write_plan(plan())
    rows = project.plan()
    assert [row["prompt_set"] for row in rows] == ["piqa"] * 3 + ["chatgpt"] * 3 + ["piqa", "chatgpt"]
    assert {row["prompts"] for row in rows} == {"prompts/few.json"}


def test_two_experiments_with_one_name_are_refused(project: Project) -> None:
    copy = project.folder / "config/experiments/again.yaml"
    copy.write_text((project.folder / "config/experiments/server_gpu.yaml").read_text())
    project.edit("experiments/again.yaml", lambda sweep: sweep.update(sizes=["small"]))
    taken = r"name that is taken; where: .*/server_gpu.yaml; received: server, as that of again.yaml; fix: choose"
    with pytest.raises(TreespecError, match=taken):
        plan_workflow({"platform": "tiny"})
    for prefix, told in {"requests": "as the one of all experiments", "server_small": "as that of again.yaml"}.items():
        project.edit("experiments/again.yaml", lambda sweep, prefix=prefix: sweep.update(prefix=prefix))
        with pytest.raises(TreespecError, match=f"received: {prefix}, {told}; fix: choose another prefix"):
            plan_workflow({"platform": "tiny"})
    project.edit("experiments/again.yaml", lambda sweep: sweep.update(prefix="server_small-1", name_form="{mode}"))
    project.edit("experiments/again.yaml", lambda sweep: sweep.update(sizes=["small"], batch_sizes=[1]))
    project.edit("experiments/server_gpu.yaml", lambda sweep: sweep.update(name_form="{size}-{batch_size}_{mode}"))
    with pytest.raises(
        TreespecError, match=r"two scenarios of one name; .*again and server_gpu; received: server_small-1_"
    ):
        plan_workflow({"platform": "tiny"})


def test_a_platform_chooses_which_models_stand_in_a_size_of_an_experiment(project: Project) -> None:
    def place(platform: dict[str, Any]) -> None:
        target = platform["sizes"]["small"]["target"]
        platform["sizes"]["plain"] = platform["sizes"]["small"] | {"target": target | {"label": "plain"}}
        platform["overrides"]["server_gpu"].update(roles={"small": "plain"}, max_tree_nodes=32)

    before = names(plan())
    project.edit("platforms/tiny.yaml", place)
    (placement,) = plan().sweeps["server_gpu"]
    assert (placement.role, placement.job.placement.target.label) == ("plain", "plain")
    assert placement.job.placement.max_tree_nodes == 32
    assert names(plan()) == before


def test_costs_are_measured_where_times_count(project: Project) -> None:
    def measured() -> bool:
        (placement,) = plan().sweeps["server_gpu"]
        return placement.job.placement.measure_costs

    override(project, peers=[])
    before = marker()
    assert measured()
    project.edit("platforms/tiny.yaml", lambda data: data["sizes"]["small"].update(purpose="functional"))
    assert not measured()
    assert marker() == before, "what passes cost is no part of what is measured"


def test_batches_of_equal_requests_show_in_names(project: Project) -> None:
    override(project, batch_composition="repeated", batch_sizes=[2])
    (placement,) = plan().sweeps["server_gpu"]
    assert {item.config.batch_composition for item in placement.scenarios} == {"repeated"}
    assert [name for name in names(plan()) if not name.endswith("-batch_composition_repeated")] == []


def test_how_much_is_measured_changes_the_marker_but_no_name(project: Project) -> None:
    before, marker_before = names(plan()), marker()
    override(project, num_repeats=2)
    assert names(plan()) == before
    assert marker() != marker_before


@pytest.mark.parametrize("name", ["models/target/model.safetensors", "models/draft/config.json", "prompts/few.json"])
def test_other_weights_or_prompts_are_another_marker(project: Project, name: str) -> None:
    before = marker()
    (project.folder / name).write_text('["something else"]')
    assert marker() != before


def test_planning_twice_gives_the_same_and_rewrites_nothing(project: Project) -> None:
    assert marker() == marker()
    write_plan(plan())
    files = sorted(path for path in (project.folder / "results").rglob("*") if path.is_file())
    before = {path: path.stat().st_mtime_ns for path in files}
    write_plan(plan())
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert [path.name for path in files] == [
        "server_gpu-small.yaml",
        "records_state",
        "server_gpu.json",
        "platform.yaml",
    ]


def test_plans_and_tables_of_an_experiment_that_is_gone_go(project: Project) -> None:
    results = project.folder / "results/tiny"
    write_plan(plan())
    (results / "csv").mkdir()
    for name in ("plan/gone.json", "csv/gone.csv", "csv/server.csv", "csv/requests.csv"):
        (results / name).write_text("")
    project.write_record(project.plan()[0] | {"scenario": "gone_small"})
    write_plan(plan())
    left = {f"{path.parent.name}/{path.name}" for path in results.rglob("*") if path.parent.name in ("plan", "csv")}
    assert {name for name in left if name.endswith(".csv")} == {"csv/server.csv", "csv/requests.csv"}
    assert "plan/gone.json" not in left and "plan/server_gpu.json" in left
    assert (project.raw / "gone_small.meta.json").exists()


def test_planning_alone_writes_nothing(project: Project) -> None:
    plan()
    assert not (project.folder / "results").exists()


def test_a_job_file_is_what_the_engine_accepts(project: Project) -> None:
    from treespec.config import fingerprints, load_run_config

    write_plan(plan())
    job = load_run_config(project.folder / "results/tiny/jobs/server_gpu-small.yaml")
    ours = [row for row in project.plan() if row["mode"] != "transformers"]
    assert {row["scenario"]: row["fingerprint"] for row in ours} == fingerprints(job)


def test_a_peer_serves_the_incremental_scenarios_under_its_own_name(project: Project) -> None:
    override(project, max_new_tokens=16)
    write_plan(plan())
    rows = {row["scenario"]: row for row in project.plan()}
    theirs = [row for row in rows.values() if row["mode"] == "transformers"]
    assert [row["scenario"] for row in theirs] == [
        f"server_small-{batch_size}_batchsize-transformers-max_new_tokens_16" for batch_size in (1, 2)
    ]
    for row in theirs:
        ours = rows[row["scenario"].replace("transformers", "incr_dec")]
        different = {key for key in ours if ours[key] != row[key]}
        assert different == {"scenario", "mode", "mode_name", "fingerprint"}


def test_a_peers_marker_follows_its_version_and_our_fingerprints(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def markers() -> list[str]:
        return plan().markers("server_gpu")

    (ours, theirs), before = markers(), markers()
    assert theirs.startswith("results/tiny/ok/server_gpu-small-transformers.")
    monkeypatch.setattr("benchmarks.peer_identity.peer_version", lambda peer: "0.0")
    assert markers()[0] == ours
    assert markers()[1] != theirs
    monkeypatch.undo()
    monkeypatch.chdir(project.folder)
    override(project, num_repeats=2)
    assert not set(markers()) & set(before)
    override(project, peers=[])
    assert len(markers()) == 1
    write_plan(plan())
    assert {row["mode"] for row in project.plan()} == {"incremental", "sequence", "tree"}


def test_a_peer_on_several_ranks_is_refused(project: Project) -> None:
    def widen(platform: dict[str, Any]) -> None:
        platform.update(ranks_per_node=2)
        platform["sizes"]["small"].update(tensor_parallel_degree=2)

    project.edit("platforms/tiny.yaml", widen)
    with pytest.raises(TreespecError, match=r"on one rank only; .*received: 2 ranks; fix: .*peers: \[\]"):
        plan()


def test_each_marker_stands_for_its_own_records(project: Project) -> None:
    write_plan(plan())
    for row in project.plan():
        project.write_record(row, status="ok" if row["mode"] == "transformers" else "failed")
    for marker in map(Path, plan().markers("server_gpu")):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    write_plan(plan())
    left = [path.name.partition(".")[0] for path in Path("results/tiny/ok").iterdir()]
    assert left == ["server_gpu-small-transformers"]


def test_a_marker_without_its_records_is_taken_away(project: Project) -> None:
    write_plan(plan())
    for row in project.plan():
        project.write_record(row)
    path = project.folder / marker()
    path.parent.mkdir(parents=True)
    path.touch()
    write_plan(plan())
    assert path.exists()
    project.write_record(project.plan()[0], fingerprint="0" * 64)
    write_plan(plan())
    assert not path.exists()


@pytest.mark.parametrize("change", [{"status": "failed"}, {"num_rows": 2}, {"rows_sha256": "0" * 64}])
def test_a_marker_over_a_failed_or_cut_record_is_taken_away(project: Project, change: dict[str, Any]) -> None:
    write_plan(plan())
    for row in project.plan():
        project.write_record(row)
    project.write_record(next(row for row in project.plan() if row["mode"] == "tree"), **change)
    path = project.folder / marker()
    path.parent.mkdir(parents=True)
    path.touch()
    write_plan(plan())
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ["large"]}, "no models stand in this size; where: config/platforms/tiny.yaml; received: large"),
        ({"prompts": "poems"}, "no file stands for this prompt set"),
        ({"sizes": None}, "sizes: Input should be a valid tuple"),
        ({"batch_sizes": [0]}, "batch_sizes.0: Input should be greater than or equal to 1 (received 0)"),
        ({"modes": {"tree_specinfer": {"mode": "tree", "expansion": [1]}}}, "mode 'tree' does not fit expansion [1]"),
        (
            {"modes": {"beam search": {"mode": "tree", "expansion": [2]}}},
            "overrides.server_gpu.modes.beam search.[key]",
        ),
        ({"modes": {"beam": None}}, "modes left out that are not there; where: config/platforms/tiny.yaml"),
        ({"modes": {"incr_dec": {"mode": "incremental", "tree_layout": "sequences"}}}, "with nothing drafted"),
        ({"prompts": []}, "overrides.server_gpu.prompts"),
        ({"prompts": ["chatgpt", "poems"]}, "no file stands for this prompt set"),
        ({"prompts": ["chatgpt", "chatgpt"]}, "scenario names must be unique"),
        (
            {"roles": {"small": "tiny"}},
            "no models stand in this size; where: config/platforms/tiny.yaml; received: tiny",
        ),
        ({"max_new_tokens": 256}, "leaves no room for a prompt"),
        ({"peers": ["vllm"]}, "overrides.server_gpu.peers.0: Input should be 'transformers' (received 'vllm')"),
    ],
)
def test_what_cannot_be_run_is_refused(project: Project, change: dict[str, Any], message: str) -> None:
    override(project, **change)
    with pytest.raises(TreespecError) as caught:
        plan()
    assert message in str(caught.value)
    assert "tiny.yaml" in str(caught.value)


def test_files_that_cannot_be_read_are_named(project: Project) -> None:
    (project.folder / "config/platforms/tiny.yaml").write_text("sizes: [small")
    with pytest.raises(TreespecError, match=r"not valid YAML; where: config/platforms/tiny.yaml"):
        plan()
    (project.folder / "config/experiments/basic_test.yaml").unlink()
    (project.folder / "config/platforms/tiny.yaml").write_text(
        (project.folder / "config/platforms/laptop.yaml").read_text()
    )
    with pytest.raises(TreespecError, match=r"configuration cannot be read; where: config/experiments/basic_test.yaml"):
        plan()


def test_overrides_of_an_unknown_experiment_are_refused(project: Project) -> None:
    project.edit("platforms/tiny.yaml", lambda platform: platform["overrides"].update(ablation={"num_repeats": 2}))
    with pytest.raises(TreespecError, match=r"unknown experiment.*ablation.*allowed: \['offloading', .*'server_gpu', "):
        plan()


def test_more_ranks_than_places_are_refused(project: Project) -> None:
    project.edit("platforms/tiny.yaml", lambda platform: platform["sizes"]["small"].update(tensor_parallel_degree=2))
    with pytest.raises(TreespecError, match=r"more ranks than places.*received: 2 ranks; allowed: at most 1"):
        plan()


def test_the_laptop_runs_the_inflated_pair_over_the_artifacts_grid(project: Project) -> None:
    import yaml

    from rules.settings import Platform, validated
    from rules.sweeps import Sweep

    for name, model in (("platforms/laptop.yaml", Platform), ("experiments/server_gpu.yaml", Sweep)):
        validated(model, yaml.safe_load((project.folder / "config" / name).read_text()), name)
    sweep = yaml.safe_load((project.folder / "config/experiments/server_gpu.yaml").read_text())
    assert sweep["batch_sizes"] == [1, 2, 4, 8, 16]
    assert sweep["modes"]["tree_specinfer"]["expansion"] == [1, 1, 3, 1, 1, 1, 1, 1]


def test_schemas_are_current() -> None:
    folder = REPOSITORY / "config/schema"
    written = {path.name: path.read_text() for path in folder.glob("*.json")}
    assert written == schema_texts(), "run: make schema"


def test_planning_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "pandas", "matplotlib"]
    code = f"import rules.plan_writing, sys, json; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_platform_file_of_ones_own(project: Project) -> None:
    path = project.folder / "mine.yaml"
    path.write_text((project.folder / "config/platforms/tiny.yaml").read_text())
    assert plan_workflow({"platform": str(path)}, ["server_gpu"]).results == Path("results/mine")
    taken = path.rename(project.folder / "tiny.yaml")
    with pytest.raises(TreespecError, match=r"another platform has this name, and its results; where: .*tiny.yaml"):
        plan_workflow({"platform": str(taken)})
    with pytest.raises(TreespecError, match="platform file is not there"):
        plan_workflow({"platform": str(path)})


def test_checksums_beside_every_model_and_the_prompts_are_checked(project: Project) -> None:
    for folder in ("models/target", "models/draft", "prompts"):
        (project.folder / folder / "SHA256SUMS").write_text("")
    assert {Path(path).parent.as_posix() for path in plan().checksum_files()} == {
        "models/target",
        "models/draft",
        "prompts",
    }


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "doubled.yaml"
    path.write_text("modes:\n  naive: {mode: tree}\n  other: &other {mode: tree}\n  naive: *other\n")
    with pytest.raises(ConfigError, match="key 'naive' stands twice"):
        read_yaml(path)
