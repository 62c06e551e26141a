"""One model on several ranks: real torchrun over gloo, the tokens of one process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.conftest import TinyModels
from engine.tests.jobs import JobFolder
from engine.tests.properties import examples
from treespec.config import Placement
from treespec.errors import ConfigError
from treespec.model.loader import open_model
from treespec.parallel.mesh import ParallelMesh
from treespec.serving.limits import mesh_of, require_divisible

DEGREES = [(2, 1), (1, 2), (2, 2)]


def meshes(tensor: int, pipeline: int, split: tuple[int, ...] | None = None) -> list[ParallelMesh]:
    return [ParallelMesh(tensor, pipeline, rank, split) for rank in range(tensor * pipeline)]


@given(tensor=st.integers(1, 5), pipeline=st.integers(1, 4), count=st.integers(5, 40), layers=st.integers(4, 30))
@examples(100)
def test_shares_and_stages_are_disjoint_and_whole(tensor: int, pipeline: int, count: int, layers: int) -> None:
    ranks = meshes(tensor, pipeline)
    for stage in range(pipeline):
        of_stage = ranks[stage * tensor : (stage + 1) * tensor]
        assert [entry for mesh in of_stage for entry in mesh.share(count)] == list(range(count))
        assert {mesh.layers(layers) for mesh in of_stage} == {of_stage[0].layers(layers)}
        assert max(len(mesh.share(count)) for mesh in of_stage) == of_stage[0].largest_share(count)
    assert [layer for mesh in ranks[::tensor] for layer in mesh.layers(layers)] == list(range(layers))
    assert [mesh.rank for mesh in ranks if mesh.is_driver] == [(pipeline - 1) * tensor]


@pytest.mark.parametrize(
    ("stages", "tokens", "parts"),
    [(1, 1000, 1), (2, 1, 1), (2, 15, 1), (2, 16, 2), (2, 1000, 2), (4, 25, 3), (4, 99, 4)],
)
def test_a_pass_is_split_only_into_parts_that_are_worth_it(stages: int, tokens: int, parts: int) -> None:
    assert ParallelMesh(1, stages).num_micro_batches(tokens, min_tokens=8) == parts


def test_layers_are_split_as_told() -> None:
    assert [mesh.layers(7) for mesh in meshes(1, 3, (1, 4, 2))] == [range(1), range(1, 5), range(5, 7)]


def test_few_key_value_heads_are_held_by_several_ranks() -> None:
    assert [list(mesh.kv_heads(2)) for mesh in meshes(4, 1)] == [[0], [0], [1], [1]]
    assert [list(mesh.heads(8)) for mesh in meshes(4, 1)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("degrees", "told"),
    [
        ({"tensor_parallel_degree": 3}, "tensor_parallel_degree 3 for 4 heads and 2 key/value heads; allowed: 1, 2, 4"),
        ({"pipeline_parallel_degree": 9}, "pipeline_parallel_degree 9; allowed: 1 to 2"),
        ({"pipeline_parallel_degree": 2, "layer_split": (2, 3)}, "together 5; allowed: 2 layers"),
    ],
)
def test_degrees_that_do_not_divide_the_model_are_one_error(
    tiny: TinyModels, degrees: dict[str, Any], told: str
) -> None:
    placement = Placement(name="p", target={"path": tiny.target("gqa")}, **degrees)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=told):
        require_divisible(open_model(placement.target).spec, mesh_of(placement, 0), placement.name)


def served_on(
    job: JobFolder, tensor: int, pipeline: int, look: Callable[[str], None] = lambda name: None
) -> dict[str, list[list[int]]]:
    """Tokens of every scenario, served on so many ranks; ``look`` is called with each while its record is there."""
    degrees = {"tensor_parallel_degree": tensor, "pipeline_parallel_degree": pipeline}
    job.placement = {"micro_batch_tokens": 1} | job.placement | degrees
    run = job.start()
    _, told = run.communicate(timeout=240)
    assert run.returncode == 0, told[-3000:]
    tokens = {name: [row["output_token_ids"] for row in job.rows(name)] for name in job.names}
    for name in job.names:
        look(name)
    for path in job.results.iterdir():
        path.unlink()
    return tokens


@pytest.mark.slow
@pytest.mark.parametrize(("tensor", "pipeline"), DEGREES)
def test_several_ranks_write_the_tokens_of_one(job: JobFolder, tensor: int, pipeline: int) -> None:
    alone = served_on(job, 1, 1)
    assert len(alone) == 3
    assert served_on(job, tensor, pipeline) == alone


SAMPLED = {"temperature": 0.8, "top_k": 20, "seed": 3}
METHODS: dict[str, dict[str, Any]] = {
    "sampled": {},
    "ngram": {"drafters": [{"kind": "ngram"}]},
    "best": {"drafters": [{"tree": "best", "num_nodes": 6}]},
    "dynamic": {"drafters": [{"tree": "dynamic", "num_nodes": 6, "max_depth": 3}]},
    "portfolio": {"drafters": [{"expansion": [2, 1]}, {"kind": "suffix", "num_nodes": 4}]},
    "mss": {"drafters": [{"expansion": [2, 2], "selection": "iid"}], "verifier": "mss"},
    "recursive": {
        "drafters": [{"expansion": [3, 1], "selection": "without_replacement"}],
        "verifier": "recursive_rejection",
    },
    "block": {"drafters": [{"expansion": [1, 1, 1], "selection": "iid"}], "verifier": "block"},
    "sequences": {"drafters": [{"expansion": [2, 2, 1]}], "tree_layout": "sequences"},
    "mss-sequences": {
        "drafters": [{"expansion": [3, 2], "selection": "iid"}],
        "verifier": "mss",
        "tree_layout": "sequences",
    },
    "traversal": {"drafters": [{"expansion": [2, 2], "selection": "iid"}], "verifier": "traversal"},
    "auto": {
        "drafters": [{"tree": "auto", "num_nodes": 6}],
        "sampling": {},
    },  # its trees follow the clock, not its text
}


@pytest.mark.slow
def test_every_way_to_draft_and_to_verify_writes_the_same_on_several_ranks(job: JobFolder) -> None:
    common = {key: job.scenarios[0][key] for key in ("prompts", "max_requests_per_batch", "max_new_tokens")}
    job.scenarios = [
        common | {"name": name, "mode": mode_of(method), "ignore_eos": True, "sampling": SAMPLED} | spelt_out(method)
        for name, method in METHODS.items()
    ]
    alone = served_on(job, 1, 1)
    assert alone["sampled"] != alone["auto"], "sampling must show"
    assert served_on(job, 2, 2) == alone


def spelt_out(method: dict[str, Any]) -> dict[str, Any]:
    return method | {"drafters": [{"kind": "ssm"} | drafter for drafter in method.get("drafters", [])]}


def mode_of(method: dict[str, Any]) -> str:
    drafters = method.get("drafters", [])
    if not drafters:
        return "incremental"
    is_chain = drafters[0].get("kind") == "ngram" or set(drafters[0].get("expansion", [2])) == {1}
    return "sequence" if len(drafters) == 1 and is_chain else "tree"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["follower", "driver"])
def test_a_killed_rank_ends_the_run_soon_and_leaves_nothing_behind(job: JobFolder, victim: int) -> None:
    job.change(max_new_tokens=40, num_repeats=2000)
    job.placement |= {"pipeline_parallel_degree": 2, "rank_timeout_s": 10}
    run = job.start()
    ranks = wait_for_ranks(run.pid, 2)
    os.kill(ranks[victim], signal.SIGKILL)
    _, told = run.communicate(timeout=60)
    assert run.returncode != 0, told[-2000:]
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    assert job.complete() == []


def wait_for_ranks(parent: int, count: int) -> list[int]:
    """Process ids of the ranks below ``parent``, by rank, once they have spoken."""
    for _ in range(600):
        time.sleep(0.1)
        found: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "environ").read_bytes().split(b"\0")
                rank = next((int(word[5:]) for word in words if word.startswith(b"RANK=")), None)
                if rank is not None and is_below(int(path.name), parent):
                    found[rank] = int(path.name)
            except (OSError, ValueError):
                continue
        if len(found) == count:
            time.sleep(6)  # rendezvous and loading are over: what is killed is serving
            return [found[rank] for rank in range(count)]
    raise AssertionError("the ranks did not start")


def is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False
