"""The shipped experiments: what they plan on every platform is what the paper's figures and tables are of."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from rules.plan_files import Workflow, plan_workflow
from rules.plan_writing import write_plan
from tests.workflow.project import REPOSITORY, Project, cpu_seconds, jobs
from treespec.config import Scenario, SsmDrafting

PROMPT_SETS = ("chatbot", "chatgpt", "webqa", "alpaca", "piqa")
BATCH_SIZES = (1, 2, 4, 8, 16)
EXPERIMENTS = ("parallel_decoding", "rank_success", "sampling", "tree_width", "tree_width_latency")
OWN = {"platform": "local", "target": "models/embedded/llama/target", "draft": "models/embedded/llama/draft"}
PAPERS = ({"platform": "g5"}, {"platform": "single_gpu"})
PLATFORMS = ({"platform": "laptop"}, *PAPERS, {"platform": "two_nodes_local"}, OWN)
TOTAL_BUDGET_MINUTES = 27
"""Of the half hour that everything embedded may take; the rest is for set-up, audit, figures and report."""

pytestmark = pytest.mark.usefixtures("shipped")


def scenarios(experiment: str, config: dict[str, str]) -> dict[str, Scenario]:
    """The scenarios of an experiment on a platform, by name, all of one placement."""
    (placement,) = plan_workflow(config, [experiment]).sweeps[experiment]
    return {item.config.name: item.config for item in placement.scenarios}


def drafter(scenario: Scenario) -> SsmDrafting:
    """The one draft model's part, however it is said."""
    (drafting,) = scenario.drafting
    assert isinstance(drafting, SsmDrafting)
    return drafting


def config_name(config: dict[str, str]) -> str:
    return config["platform"]


JOBS_OF_ALL = {
    "check_machine": 1,
    "check_models": 1,
    "check_jobs": 1,
    "engine_wheel": 1,
    "check_modes": 1,
    "audit_losslessness": 1,
    "all": 1,
}
PEER = {"peer": 1}
HOSTS = {"provision_cluster": 1, "check_cluster": 1}


@pytest.mark.parametrize(
    ("config", "num_placements", "further", "counts"),
    [
        ({"platform": "laptop"}, 12, PEER, (8, 10, 20, 95, 20)),
        ({"platform": "g5"}, 14, HOSTS, (10, 10, 20, 95, 25)),
        ({"platform": "single_gpu"}, 12, PEER, (10, 10, 20, 95, 25)),
        ({"platform": "two_nodes_local"}, 3, HOSTS | {"start_embedded_cluster": 1}, (0, 0, 0, 0, 0)),
        (OWN, 9, PEER, (8, 2, 4, 19, 20)),
    ],
    ids=lambda value: value.get("platform") if isinstance(value, dict) else None,
)
def test_jobs_and_scenarios(
    shipped: Project, config: dict[str, str], num_placements: int, further: dict[str, int], counts: tuple[int, ...]
) -> None:
    workflow = plan_workflow(config)
    planned = {name: sum(len(job.scenarios) for job in workflow.sweeps[name]) for name in EXPERIMENTS}
    assert planned == dict(zip(EXPERIMENTS, counts, strict=True))
    given = ["--config", *(f"{key}={value}" for key, value in config.items()), "--"]
    done = shipped.snakemake("-n", *given, "all")
    assert jobs(done.stdout) == JOBS_OF_ALL | further | {"placement": num_placements}
    assert set(all_names(workflow)) - set(done.stdout.split()) == set()


def all_names(workflow: Workflow) -> list[str]:
    jobs_of_all = (job for sweep in workflow.sweeps.values() for placement in sweep for job in placement.jobs)
    return [item.config.name for job in jobs_of_all for item in job.scenarios]


def test_every_shipped_experiment_is_counted() -> None:
    files = {path.stem for path in (REPOSITORY / "config/experiments").glob("*.yaml")}
    assert files == {*EXPERIMENTS, "server_gpu", "offloading", "basic_test"}


@pytest.mark.parametrize("config", PLATFORMS, ids=config_name)
def test_every_name_is_one_record_and_every_table_one_experiments(config: dict[str, str]) -> None:
    workflow = plan_workflow(config)
    assert [name for name, count in Counter(all_names(workflow)).items() if count > 1] == []
    tables = [table for tables in workflow.tables.values() for table in tables]
    assert len(tables) == len(set(tables))
    long_tables = {name: tables[0] for name, tables in workflow.tables.items()}
    assert long_tables == {"server_gpu": "server", "offloading": "offloading"} | {name: name for name in EXPERIMENTS}
    with_sizes = {name for name, tables in workflow.tables.items() if len(tables) > 1}
    assert with_sizes <= {"server_gpu", "offloading"}


@pytest.mark.parametrize("config", PAPERS, ids=config_name)
def test_the_papers_platforms_run_its_pair(config: dict[str, str]) -> None:
    workflow = plan_workflow(config, EXPERIMENTS)
    for sweep in workflow.sweeps.values():
        (job,) = sweep
        placement = job.job.placement
        assert (placement.target.hub_id, placement.drafts[0].hub_id) == ("huggyllama/llama-7b", "JackFram/llama-68m")
        assert (job.purpose, placement.num_ranks, placement.measure_costs) == ("measure", 1, True)


def test_the_laptop_counts_with_the_pair_as_it_is_stored_and_times_the_inflated_one() -> None:
    workflow = plan_workflow({"platform": "laptop"}, EXPERIMENTS)
    inflated = {name: sweep[0].job.placement.target.inflation is not None for name, sweep in workflow.sweeps.items()}
    assert inflated == {name: name in ("tree_width_latency", "parallel_decoding") for name in EXPERIMENTS}


@pytest.mark.parametrize("config", PAPERS, ids=config_name)
def test_tree_width_is_table_2_with_both_places_of_branching(config: dict[str, str]) -> None:
    planned = scenarios("tree_width", config)
    baselines = {f"tree_width_{prompts}-incr_dec" for prompts in PROMPT_SETS}
    assert {planned.pop(name).mode for name in baselines} == {"incremental"}
    widths = ["1", *(f"{width}_{place}" for place in ("third", "first") for width in range(2, 6))]
    assert {*planned} == {
        f"tree_width_{prompts}-{decoding}_width_{width}"
        for prompts in PROMPT_SETS
        for decoding in ("greedy", "stochastic")
        for width in widths
    }
    for name, scenario in planned.items():
        width, _, place = name.rpartition("_width_")[2].partition("_")
        tree = drafter(scenario)
        chain = [1] * 8
        chain[2 if place == "third" else 0] = int(width)
        assert list(tree.expansion) == chain, name
        assert tree.max_nodes == (2 + 6 * int(width) if place == "third" else 8 * int(width)), name
        is_drawn = "stochastic" in name
        assert tree.selection == ("iid" if is_drawn else "top_k")
        assert (scenario.verifier, scenario.sampling.temperature) == (("mss", 1.0) if is_drawn else ("auto", 0.0))
        assert (scenario.max_new_tokens, scenario.ignore_eos) == (128, False)


@pytest.mark.parametrize("config", PAPERS, ids=config_name)
def test_tree_width_latency_is_figure_10(config: dict[str, str]) -> None:
    planned = scenarios("tree_width_latency", config)
    assert {name: (drafter(item).expansion, item.max_requests_per_batch) for name, item in planned.items()} == {
        f"tree_width_latency_{batch_size}_batchsize-width_{width}": ((1, 1, width, 1, 1, 1, 1, 1), batch_size)
        for batch_size in BATCH_SIZES
        for width in range(1, 6)
    }
    assert {item.sampling.is_greedy for item in planned.values()} == {True}


@pytest.mark.parametrize("config", PAPERS, ids=config_name)
def test_parallel_decoding_is_one_tree_in_two_layouts(config: dict[str, str]) -> None:
    planned = scenarios("parallel_decoding", config)
    assert {name: (drafter(item).expansion, item.tree_layout) for name, item in planned.items()} == {
        f"parallel_decoding_{batch_size}_batchsize-{mode}": ((1, 1, 3, 1, 1, 1, 1, 1), layout)
        for batch_size in BATCH_SIZES
        for mode, layout in (("tree_based", "tree"), ("sequence_based", "sequences"))
    }


@pytest.mark.parametrize("config", PAPERS, ids=config_name)
def test_rank_success_offers_five_tokens_at_every_node_that_has_children(config: dict[str, str]) -> None:
    planned = scenarios("rank_success", config)
    told = {
        name: (drafter(item).expansion, drafter(item).selection, item.verifier, item.sampling.temperature)
        for name, item in planned.items()
    }
    ways = {"greedy": ("top_k", "auto", 0.0), "stochastic": ("iid", "mss", 1.0)}
    assert told == {
        f"rank_success_{prompts}-{mode}": ((5, 5, 5), *way) for prompts in PROMPT_SETS for mode, way in ways.items()
    }
    assert {item.num_tree_nodes for item in planned.values()} == {156}


@pytest.mark.parametrize("config", PAPERS, ids=config_name)
def test_sampling_compares_two_verifiers_on_the_same_draws(config: dict[str, str]) -> None:
    planned = scenarios("sampling", config)
    third, first = (1, 1, 5, 1, 1, 1, 1, 1), (5, 1, 1, 1, 1, 1, 1, 1)
    verifiers = {"naive": "sampler_match", "multi_step": "mss"}
    assert {
        name: (drafter(item).expansion, drafter(item).selection, item.verifier, item.sampling.temperature)
        for name, item in planned.items()
    } == {
        f"sampling_{prompts}-{name}_{place}": (expansion, "iid", verifier, 1.0)
        for prompts in PROMPT_SETS
        for place, expansion in (("third", third), ("first", first))
        for name, verifier in verifiers.items()
    }


def test_the_laptop_shortens_and_says_so() -> None:
    """What is generated is another text than the paper's, so its length stands in the names."""
    for experiment, num_tokens in (
        ("tree_width", 32),
        ("sampling", 32),
        ("rank_success", 32),
        ("parallel_decoding", 32),
    ):
        planned = scenarios(experiment, {"platform": "laptop"})
        assert {item.max_new_tokens for item in planned.values()} == {num_tokens}
        assert [name for name in planned if not name.endswith(f"-max_new_tokens_{num_tokens}")] == []


def test_the_plan_tells_what_parsing_needs_of_a_tree(shipped: Project) -> None:
    workflow = plan_workflow({"platform": "laptop", "results_dir": "results"}, ["sampling", "parallel_decoding"])
    write_plan(workflow)
    path = Path(workflow.plan_file("sampling"))
    (shipped.folder / "results/tiny").symlink_to(shipped.folder / path.parents[1])
    row = shipped.plan("sampling")[1]
    assert row["scenario"] == "sampling_chatbot-multi_step_third-max_new_tokens_32"
    told = {key: row[key] for key in ("mode", "mode_name", "prompt_set", "verifier", "tree_layout", "batch_size")}
    assert told == {
        "mode": "multi_step_third",
        "mode_name": "multi_step_third",
        "prompt_set": "chatbot",
        "verifier": "mss",
        "tree_layout": "tree",
        "batch_size": 8,
    }
    assert row["sampling"]["temperature"] == 1.0
    assert [(item["expansion"], item["selection"]) for item in row["drafters"]] == [([1, 1, 5, 1, 1, 1, 1, 1], "iid")]
    layouts = {row["mode"]: row["tree_layout"] for row in shipped.plan("parallel_decoding")}
    assert layouts == {"tree_based": "tree", "sequence_based": "sequences"}


def test_budgets_leave_room_in_half_an_hour() -> None:
    budgets = plan_workflow({"platform": "laptop"}).budgets_minutes
    assert budgets.keys() == {*EXPERIMENTS, "server_gpu", "offloading", "basic_test"}
    assert sum(budgets.values()) <= TOTAL_BUDGET_MINUTES


def test_the_whole_grid_is_planned_in_a_moment(shipped: Project) -> None:
    """320 scenarios, in a small part of what Snakemake takes to start: the ratio holds on a busy machine too."""
    before = cpu_seconds()
    shipped.snakemake("--version")
    start = cpu_seconds() - before
    begun = time.process_time()
    workflow = plan_workflow({"platform": "g5"})
    write_plan(workflow)
    assert len(all_names(workflow)) == 325
    assert time.process_time() - begun < start / 4


def test_the_example_of_the_documentation_is_an_experiment(shipped: Project) -> None:
    text = (REPOSITORY / "docs/adding.md").read_text()
    example = text.partition("## An experiment")[2].partition("```yaml\n")[2].partition("```")[0]
    Path("config/experiments/temperature.yaml").write_text(example)
    assert [*scenarios("temperature", {"platform": "laptop"})] == [
        f"temperature_{prompts}-{mode}" for prompts in ("chatgpt", "alpaca") for mode in ("cold", "warm")
    ]


def test_costs_are_measured_on_the_ranks_of_one_node_only() -> None:
    sweep = plan_workflow({"platform": "g5"}, ["server_gpu"]).sweeps["server_gpu"]
    measured = {job.name.removeprefix("server_gpu-"): job.job.placement.measure_costs for job in sweep}
    assert measured == {"small": True, "medium": True, "large": False}
