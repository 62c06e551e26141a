"""The shipped platforms: what they plan, what they say a machine lacks, and which arguments they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rules.machine import lacks
from rules.plan_files import Workflow, plan_workflow
from rules.platforms import load_platform
from tests.workflow.project import REPOSITORY, Project, jobs
from tests.workflow.stand_ins import put_stand_ins
from treespec.errors import TreespecError
from treespec.serving.build import methods_of
from treespec.serving.prompts import require_prompts

MODES = ("incr_dec", "sequence_specinfer", "tree_specinfer")
PAIR = "models/embedded/llama"
OWN = {"platform": "local", "target": f"{PAIR}/target", "draft": f"{PAIR}/draft"}
OWN_USAGE = "fix: snakemake TARGET --config platform=local target=PATH draft=PATH [device=cpu]"
CPU = {"computes": True, "memory_mib": 8000}
A10G = {"computes": True, "memory_mib": 22515}


def settings(config: dict[str, Any]) -> list[str]:
    """A configuration as the command line takes it."""
    return ["--config", *(f"{key}={value}" for key, value in config.items()), "--"]


def names(workflow: Workflow, experiment: str = "server_gpu") -> list[str]:
    return [item.config.name for job in workflow.sweeps[experiment] for item in job.scenarios]


def paper_names(sizes: tuple[str, ...]) -> list[str]:
    """The artifact's names of the paper's grid: three modes at five batch sizes."""
    grid = [(size, batch_size, mode) for size in sizes for batch_size in (1, 2, 4, 8, 16) for mode in MODES]
    return [f"server_{size}-{batch_size}_batchsize-{mode}" for size, batch_size, mode in grid]


def machine(*gpus: dict[str, Any]) -> dict[str, Any]:
    return {"cpu": CPU, "gpus": list(gpus)}


def lacking(config: dict[str, Any], here: dict[str, Any]) -> list[str]:
    workflow = plan_workflow(config, ["server_gpu"])
    sizes = {size: roles for size, roles in workflow.platform.sizes.items() if size in workflow.sizes()}
    return lacks(workflow.platform, sizes, here)


@pytest.mark.parametrize(
    ("config", "server", "offloading"),
    [
        ({"platform": "laptop"}, (3, 21), (4, 32)),
        ({"platform": "single_gpu"}, (1, 15), (6, 108)),
        ({"platform": "g5"}, (3, 45), (6, 120)),
        ({"platform": "two_nodes_local"}, (3, 18), (0, 0)),
        (OWN, (1, 12), (3, 24)),
    ],
    ids=lambda value: value.get("platform") if isinstance(value, dict) else None,
)
@pytest.mark.usefixtures("shipped")
def test_placements_and_scenarios(config: dict[str, str], server: tuple[int, int], offloading: tuple[int, int]) -> None:
    """Jobs of dry runs are counted in test_experiments."""
    workflow = plan_workflow(config, ["server_gpu", "offloading"])
    counted = {name: (len(sweep), len(set(names(workflow, name)))) for name, sweep in workflow.sweeps.items()}
    assert counted == {"server_gpu": server, "offloading": offloading}


@pytest.mark.parametrize("name", ["laptop", "two_nodes_local", "g5", "single_gpu"])
@pytest.mark.usefixtures("shipped")
def test_drafters_verifiers_and_prompts_are_there_for_every_job(name: str) -> None:
    for placements in plan_workflow({"platform": name}).sweeps.values():
        for planned in placements:
            methods_of(planned.job.placement, planned.job.scenarios)
            require_prompts(planned.job.scenarios)


def test_one_experiments_target_runs_its_own_placements_only(shipped: Project) -> None:
    workflow = plan_workflow({"platform": "g5"}, ["offloading"])
    done = shipped.snakemake("-n", *settings({"platform": "g5"}), "offloading_experiments")
    once = ("check_machine", "check_models", "check_jobs", "engine_wheel", "provision_cluster", "check_cluster")
    before = dict.fromkeys(once, 1)
    assert jobs(done.stdout) == before | {"placement": 6, "offloading_experiments": 1}
    assert set(names(workflow, "offloading")) - set(done.stdout.split()) == set()


def test_an_experiment_that_is_left_out_is_no_job(shipped: Project) -> None:
    done = shipped.snakemake("-n", *settings({"platform": "two_nodes_local"}), "offloading_experiments")
    assert jobs(done.stdout) == {"offloading_experiments": 1}


def test_g5_is_the_papers_offloading_grid(shipped: Project) -> None:
    """Figure 8: OPT-13B and OPT-30B, five batch sizes; the artifact's names are those of its own setting."""
    workflow = plan_workflow({"platform": "g5"}, ["offloading"])
    artifacts = [name for name in names(workflow, "offloading") if name.count("-") == 0]
    assert artifacts == [f"offloading_{size}_{n}" for size in ("small", "large") for n in (1, 2, 4, 8, 16)]
    placements = {job.name: job.job.placement for job in workflow.sweeps["offloading"]}
    told = {
        (item.target.hub_id, item.offload, item.offload_reserve_mib, item.dtype, item.num_ranks)
        for item in placements.values()
    }
    assert told == {
        ("facebook/opt-13b", "host", 4096, "float16", 1),
        ("facebook/opt-30b", "host", 6144, "float16", 1),
    }
    assert {job.scenarios[0].config.num_prompts for job in workflow.sweeps["offloading"]} == {16}


def test_the_laptop_streams_a_model_of_four_times_its_budget(shipped: Project) -> None:
    streamed, int8, int4, resident = plan_workflow({"platform": "laptop"}, ["offloading"]).sweeps["offloading"]
    placement = streamed.job.placement
    spec = json.loads((placement.target.path / "config.json").read_text())
    inflation = placement.target.inflation
    assert inflation is not None and inflation.num_layers is not None
    width, ffn = (inflation.width_factor * spec[key] for key in ("hidden_size", "ffn_dim"))
    tables = width * (spec["vocab_size"] + spec["max_position_embeddings"])
    num_mib = 4 * (inflation.num_layers * (4 * width**2 + 2 * width * ffn) + tables) / 2**20
    assert placement.offload == "disk" and placement.offload_reserve_mib is not None
    assert 4 <= num_mib / placement.offload_reserve_mib < 4.1
    assert [job.job.placement.offload_reserve_mib for job in (int8, int4)] == [32, 28]
    assert resident.job.placement.offload is None
    assert {job.purpose for job in (streamed, int8, int4, resident)} == {"measure"}


def test_every_shipped_platform_is_counted_above() -> None:
    shipped = {path.stem for path in (REPOSITORY / "config/platforms").glob("*.yaml")}
    assert shipped == {"laptop", "single_gpu", "g5", "local", "two_nodes_local"}


def test_g5_is_the_papers_grid_models_and_degrees(shipped: Project) -> None:
    workflow = plan_workflow({"platform": "g5"}, ["server_gpu"])
    assert names(workflow) == paper_names(("small", "medium", "large"))
    placements = {job.name: job.job.placement for job in workflow.sweeps["server_gpu"]}
    ranks = {
        name: (item.tensor_parallel_degree, item.pipeline_parallel_degree, item.target.hub_id, item.drafts[0].hub_id)
        for name, item in placements.items()
    }
    assert ranks == {
        "server_gpu-small": (1, 1, "huggyllama/llama-7b", "JackFram/llama-68m"),
        "server_gpu-medium": (4, 1, "facebook/opt-30b", "facebook/opt-125m"),
        "server_gpu-large": (4, 2, "huggyllama/llama-65b", "JackFram/llama-68m"),
    }
    assert {item.dtype for item in placements.values()} == {"float16"}


def test_a_dry_run_of_g5_names_the_45_scenarios(shipped: Project) -> None:
    """In the form that the Makefile uses: a platform first, then targets."""
    done = shipped.snakemake("-n", "--config=platform=g5", "server_gpu_experiments")
    named = [word for word in done.stdout.split() if "_batchsize-" in word]
    assert sorted(named) == sorted(paper_names(("small", "medium", "large")))
    assert len(named) == 45


@pytest.mark.parametrize("platform", ["laptop", "two_nodes_local"])
def test_embedded_platforms_run_the_papers_degrees_and_time_none_of_them(shipped: Project, platform: str) -> None:
    workflow = plan_workflow({"platform": platform}, ["server_gpu"])
    placements = {job.name: job for job in workflow.sweeps["server_gpu"]}
    for size, degrees in {"medium": (4, 1), "large": (4, 2)}.items():
        job = placements[f"server_gpu-{size}"]
        placement = job.job.placement
        assert (placement.tensor_parallel_degree, placement.pipeline_parallel_degree) == degrees
        assert job.purpose == "functional"
        assert placement.target.inflation is None and placement.dtype == "float32"
        assert {item.config.max_requests_per_batch for item in job.scenarios} == {1, 4}
        assert {item.config.max_new_tokens for item in job.scenarios} == {16}
        assert not job.peers
        assert job.scenarios[0].config.name == f"server_{size}-1_batchsize-incr_dec-max_new_tokens_16"
    assert placements["server_gpu-small"].purpose == {"laptop": "measure", "two_nodes_local": "functional"}[platform]


def test_single_gpu_is_the_small_part_of_the_papers_grid(shipped: Project) -> None:
    assert names(plan_workflow({"platform": "single_gpu"}, ["server_gpu"])) == paper_names(("small",))


@pytest.mark.parametrize(
    ("platform", "parts"),
    [
        (
            "g5",
            [
                "cluster file that is not there: config/cluster.yaml (start from config/cluster.example.yaml)",
                "models/hub/facebook/opt-30b (hub: facebook/opt-30b)",
            ],
        ),
        ("single_gpu", ["CUDA devices: 1 needed, 0 here | model folders that are not there: models/hub/huggyllama"]),
    ],
)
def test_what_this_machine_lacks_is_one_line_and_nothing_starts(
    shipped: Project, platform: str, parts: list[str]
) -> None:
    put_stand_ins(shipped)
    done = shipped.snakemake(*settings({"platform": platform}), "basic_test", "server_gpu_experiments")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error: this machine")]
    assert [part for part in parts if part not in line] == []
    assert [call.split()[0] for call in (shipped.folder / "calls.txt").read_text().splitlines()] == ["describe"]
    results = shipped.folder / "results" / platform
    assert {path.name for path in results.iterdir()} == {"jobs", "plan", "logs", "platform.yaml"}
    assert [path.name for path in (results / "logs").iterdir()] == ["check_machine.log"]


def test_a_machine_that_has_everything_lacks_nothing(shipped: Project) -> None:
    assert lacking({"platform": "laptop"}, machine()) == []
    assert lacking(OWN, machine()) == []
    for size in plan_workflow({"platform": "g5"}, ["server_gpu"]).platform.sizes.values():
        for model in (size.target, *size.drafts):
            model.path.mkdir(parents=True, exist_ok=True)
            (model.path / "model.safetensors").touch()
    assert lacking({"platform": "single_gpu"}, machine(A10G)) == []
    Path("elsewhere.yaml").touch()
    assert lacking({"platform": "g5", "cluster": "elsewhere.yaml"}, machine()) == [], "its GPUs are the nodes'"


@pytest.mark.parametrize(
    ("config", "gpus", "told"),
    [
        (OWN | {"device": "cuda"}, [], "CUDA devices: 1 needed, 0 here"),
        ({"platform": "single_gpu"}, [CPU], "memory of each device: 17408 MiB needed, 8000 here"),
        (
            {"platform": "g5"},
            [A10G] * 8,
            "cluster file that is not there: config/cluster.yaml (start from config/cluster.example.yaml)",
        ),
        ({"platform": "single_gpu"}, [A10G | {"computes": False}], "cuda devices that compute wrongly: [0]"),
    ],
)
def test_a_part_that_is_lacking_is_told(
    shipped: Project, config: dict[str, str], gpus: list[dict[str, Any]], told: str
) -> None:
    assert told in lacking(config, machine(*gpus))


def test_weights_that_arrive_are_another_marker(shipped: Project) -> None:
    def markers() -> dict[str, str]:
        workflow = plan_workflow({"platform": "g5"}, ["server_gpu"])
        return {job.name: job.fingerprint for job in workflow.sweeps["server_gpu"]}

    before = markers()
    folder = shipped.folder / "models/hub/facebook/opt-125m"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    after = markers()
    assert {name for name in before if before[name] != after[name]} == {"server_gpu-medium"}


def test_ranks_share_layers_inside_a_node_only(shipped: Project) -> None:
    shipped.edit("platforms/g5.yaml", lambda data: data["sizes"]["medium"].update(tensor_parallel_degree=8))
    with pytest.raises(TreespecError, match=r"received: tensor_parallel_degree 8 with 4 ranks .*allowed: at most 4"):
        plan_workflow({"platform": "g5"}, ["server_gpu"])


def test_a_gpu_serves_one_rank(shipped: Project) -> None:
    shipped.edit("platforms/g5.yaml", lambda data: data.update(ranks_per_node=8))
    with pytest.raises(TreespecError, match=r"a GPU serves one rank: ranks_per_node is at most devices_per_node 4"):
        plan_workflow({"platform": "g5"}, ["server_gpu"])


def test_several_gpus_of_this_machine_are_counted(shipped: Project) -> None:
    def widen(data: dict[str, Any]) -> None:
        data.update(devices_per_node=2)
        data["sizes"]["small"].update(tensor_parallel_degree=2)
        data["overrides"]["server_gpu"].update(peers=[])

    shipped.edit("platforms/single_gpu.yaml", widen)
    told = lacking({"platform": "single_gpu"}, machine(A10G))
    assert told[:2] == ["CUDA devices: 2 needed, 1 here", "ranks: 2 for small needed, 1 GPUs here"]


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"platform": "local"}, ["needs target and draft;", OWN_USAGE]),
        ({"platform": "local", "target": f"{PAIR}/target"}, ["needs draft;", OWN_USAGE]),
        (OWN | {"draft": ""}, ["needs draft;", OWN_USAGE]),
        (OWN | {"draft": "nowhere"}, ["draft is not there", "received: nowhere", OWN_USAGE]),
        (OWN | {"prompts": "nowhere.json"}, ["prompts is not there", "a file of prompts", OWN_USAGE]),
        (OWN | {"target": "prompts"}, ["model folder holds no weights; where: prompts; received: no *.safetensors"]),
        (OWN | {"device": "tpu"}, ["device: Input should be 'cpu' or 'cuda' (received 'tpu')"]),
        (
            OWN | {"size": "7b"},
            ["unknown key 'size'", "platform local", "allowed: platform, results_dir,", ", target, draft,"],
        ),
        (OWN | {"platform": "laptop"}, ["unknown key 'draft', 'target'", "platform laptop; allowed: platform,"]),
    ],
)
def test_arguments_that_do_not_do_are_told(shipped: Project, config: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(TreespecError) as caught:
        plan_workflow(config, ["server_gpu"])
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_missing_path_is_one_line_of_snakemake(shipped: Project) -> None:
    done = shipped.snakemake("-n", *settings(OWN | {"target": "nowhere"}), "server_gpu_experiments")
    assert done.returncode == 1
    assert sum("target is not there" in line and OWN_USAGE in line for line in done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stdout


def test_arguments_stand_in_their_places(shipped: Project) -> None:
    given = {"target": f"{PAIR}/target", "draft": f"{PAIR}/draft", "device": "cuda", "num_prompts": 3}
    platform = load_platform("local", given)
    assert platform.sizes["small"].target.path == Path(PAIR, "target")
    assert platform.sizes["small"].drafts[0].path == Path(PAIR, "draft")
    assert platform.device == "cuda"
    assert platform.prompts == {"chatgpt": Path("prompts/tasks/story.json")}
    assert platform.overrides["server_gpu"].num_prompts == 3


def test_a_placeholder_of_no_argument_is_refused(shipped: Project) -> None:
    shipped.edit("platforms/local.yaml", lambda data: data.update(dtype="${kind}"))
    with pytest.raises(TreespecError, match=r"placeholder of no argument.*received: \$\{kind\}"):
        load_platform("local", {"target": PAIR, "draft": PAIR})


@pytest.mark.slow
def test_two_folders_of_ones_own_go_the_whole_way(shipped: Project) -> None:
    def shrink(platform: dict[str, Any]) -> None:
        platform["overrides"]["server_gpu"].update(batch_sizes=[1], num_repeats=1, max_new_tokens=8)

    shipped.edit("platforms/local.yaml", shrink)
    for target in ("server_gpu_experiments", "figures"):
        done = shipped.snakemake(*settings(OWN), target, timeout=300)
        assert done.returncode == 0, done.stdout
    results = shipped.folder / "results/local"
    metas = [json.loads(path.read_text()) for path in (results / "raw").glob("*.meta.json")]
    assert [meta["status"] for meta in metas] == ["ok"] * 4
    assert (results / "figures/server_latency.png").stat().st_size > 0
    resolved = yaml.safe_load((results / "platform.yaml").read_text())
    assert resolved["sizes"]["small"]["target"]["path"] == f"{PAIR}/target"
