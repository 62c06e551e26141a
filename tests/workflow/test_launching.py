"""How the jobs of a platform start: the words of each launcher, and what a platform may not ask of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rules.launching import LAUNCHERS, Start
from rules.plan_files import Workflow, plan_workflow
from rules.plan_writing import write_plan
from tests.workflow.project import Project
from treespec.errors import TreespecError

FOUR_BY_TWO = {"tensor_parallel_degree": 4, "pipeline_parallel_degree": 2}


@pytest.fixture(autouse=True)
def _inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)


def plan() -> Workflow:
    return plan_workflow({"platform": "tiny"}, ["server_gpu"])


def change(project: Project, roles: dict[str, Any] | None = None, **settings: Any) -> None:
    """Change the platform, and the roles of its small size; no peers, which run on one rank of this machine."""

    def edit(platform: dict[str, Any]) -> None:
        platform.update(settings)
        platform["sizes"]["small"].update(roles or {})
        platform["overrides"]["server_gpu"].update(peers=[])

    project.edit("platforms/tiny.yaml", edit)


def on_nodes(project: Project, roles: dict[str, Any] | None = None, **settings: Any) -> None:
    """Two nodes of four ranks each, reached by ssh unless ``settings`` say otherwise."""
    change(project, roles, **{"num_nodes": 2, "ranks_per_node": 4, "launch": "ssh", "cluster": "lab.yaml"} | settings)


def test_this_machine_starts_the_engine(project: Project) -> None:
    change(project, {"tensor_parallel_degree": 4}, ranks_per_node=4)
    assert plan().launch_words("server_gpu-small") == ("treespec", "run")
    assert plan().basic_test_degrees == (2, 2)


@pytest.mark.parametrize(("roles", "num_ranks"), [({}, 1), (FOUR_BY_TWO, 8)])
def test_ssh_goes_by_the_cluster_file(project: Project, roles: dict[str, int], num_ranks: int) -> None:
    on_nodes(project, roles)
    words = f"python -m cluster run --cluster lab.yaml --ranks {num_ranks}"
    assert plan().launch_words("server_gpu-small") == tuple(words.split())
    assert plan().basic_test_degrees == (4, 2)
    assert plan().basic_test_launch_words[-2:] == ("--ranks", "8")


def test_an_embedded_cluster_lies_with_the_results(project: Project) -> None:
    on_nodes(project, cluster="embedded")
    assert "results/tiny/cluster/cluster.yaml" in plan().launch_words("server_gpu-small")


@pytest.mark.parametrize(("roles", "nodes"), [({"tensor_parallel_degree": 4}, 1), (FOUR_BY_TWO, 2)])
def test_srun_is_told_nodes_and_tasks(project: Project, roles: dict[str, int], nodes: int) -> None:
    on_nodes(project, roles, launch="srun", cluster=None)
    words = f"srun --nodes={nodes} --ntasks={4 * nodes} --ntasks-per-node=4 --distribution=block --kill-on-bad-exit=1"
    assert plan().launch_words("server_gpu-small") == (*words.split(), "treespec", "run")
    asked = {
        name: plan().launch_resource("server_gpu-small", name) for name in ("mpi", "nodes", "tasks", "slurm_extra")
    }
    assert asked == {"mpi": "srun", "nodes": nodes, "tasks": 4 * nodes, "slurm_extra": "--ntasks-per-node=4"}


def test_a_single_rank_is_the_job_itself(project: Project) -> None:
    on_nodes(project, {}, launch="srun", cluster=None)
    assert plan().launch_words("server_gpu-small") == ("treespec", "run")
    assert plan().launch_resource("server_gpu-small", "mpi") is None


def test_gpus_are_asked_for_where_ranks_need_them() -> None:
    asked = LAUNCHERS["srun"].resources(Start(8, 4, needs_gpus=True))
    assert asked["slurm_extra"] == "--gpus-per-node=4 --ntasks-per-node=4"
    assert LAUNCHERS["srun"].resources(Start(1, 4, needs_gpus=True)) == {"slurm_extra": "--gpus-per-node=1"}
    assert LAUNCHERS["local"].resources(Start(8, 4, needs_gpus=True)) == {}


@pytest.mark.parametrize(
    ("roles", "settings", "message"),
    [
        (FOUR_BY_TWO, {"ranks_per_node": None}, "more ranks than places"),
        ({"tensor_parallel_degree": 8}, {}, "received: tensor_parallel_degree 8 with 4 ranks on a node"),
        ({"tensor_parallel_degree": 3, "pipeline_parallel_degree": 2}, {}, "layers are shared inside a node only"),
        ({"tensor_parallel_degree": 2, "pipeline_parallel_degree": 3}, {}, "nodes that are not filled evenly"),
        ({}, {"launch": "local", "cluster": None}, "on this machine only, received num_nodes 2; for several nodes"),
        ({}, {"cluster": None}, "launch ssh needs the path of a cluster.yaml"),
        ({}, {"launch": "srun"}, "launch srun takes no cluster, received cluster 'lab.yaml'"),
        ({}, {"launch": "mpirun"}, "launch: Input should be 'local', 'ssh' or 'srun' (received 'mpirun')"),
        ({}, {"prompts": {"chatgpt": "/srv/few.json"}}, "/srv/few.json has no place on the hosts"),
        ({"target": {"path": "../target"}}, {}, "../target has no place on the hosts"),
    ],
)
def test_what_no_launcher_can_start_is_refused(
    project: Project, roles: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    on_nodes(project, roles, **settings)
    with pytest.raises(TreespecError) as caught:
        plan()
    assert message in str(caught.value)
    assert "tiny.yaml" in str(caught.value)


@pytest.mark.parametrize("launch", [name for name, launcher in LAUNCHERS.items() if launcher.is_remote])
def test_a_peer_runs_on_this_machine_only(project: Project, launch: str) -> None:
    on_nodes(project, launch=launch, cluster="lab.yaml" if LAUNCHERS[launch].needs_cluster else None)
    project.edit("platforms/tiny.yaml", lambda data: data["overrides"]["server_gpu"].pop("peers"))
    with pytest.raises(TreespecError, match=rf"transformers runs on this machine only; .*{launch}; fix: .*peers: \[\]"):
        plan()


def test_nodes_are_filled_whole() -> None:
    assert [Start(num_ranks, 4).num_nodes for num_ranks in (1, 3, 4, 8, 12)] == [1, 1, 1, 2, 3]
    with pytest.raises(AssertionError):
        _ = Start(6, 4).num_nodes


def test_a_size_changes_what_its_platform_changes(project: Project) -> None:
    own = {"batch_sizes": [4], "num_prompts": 4, "max_new_tokens": 16, "num_repeats": 3}
    change(project, {"purpose": "functional", "overrides": own})
    (placement,) = plan().sweeps["server_gpu"]
    assert [item.config.name for item in placement.scenarios] == [
        f"server_small-4_batchsize-{mode}-max_new_tokens_16"
        for mode in ("incr_dec", "sequence_specinfer", "tree_specinfer")
    ]
    assert {(item.config.num_repeats, item.config.num_prompts) for item in placement.scenarios} == {(3, 4)}
    write_plan(plan())
    assert {row["purpose"] for row in project.plan()} == {"functional"}


def test_purpose_is_no_part_of_a_record(project: Project) -> None:
    """What is measured is the same; only what may be said of its times differs."""
    change(project)
    before = plan().markers("server_gpu")
    change(project, {"purpose": "functional"})
    assert plan().markers("server_gpu") == before


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"purpose": "fun"}, "sizes.small.purpose: Input should be 'measure' or 'functional' (received 'fun')"),
        ({"overrides": {"prompts": "alpaca"}}, "sizes.small.overrides: unknown key 'prompts'"),
        (
            {"overrides": {"batch_sizes": None}},
            "(received None); where: config/platforms/tiny.yaml, sizes.small.overrides",
        ),
        ({"overrides": {"batch_sizes": []}}, "batch_sizes: Tuple should have at least 1 item"),
    ],
)
def test_what_a_size_may_not_change_is_refused(project: Project, roles: dict[str, Any], message: str) -> None:
    change(project, roles)
    with pytest.raises(TreespecError) as caught:
        plan()
    assert message in str(caught.value)


def test_only_markers_that_are_missing_are_asked_for(project: Project) -> None:
    before = plan().missing_markers("server_gpu")
    marker = Path(before[0])
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert plan().missing_markers("server_gpu") == before[1:]
