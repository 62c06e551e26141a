"""What ranks tell each other: counted as it travels, and equal to the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.decoding import Pair
from engine.tests.jobs import JobFolder
from engine.tests.properties import examples
from engine.tests.ranked import predicted, shape_of
from engine.tests.test_parallel import served_on
from treespec.config import load_run_config
from treespec.kvcache.allocator import SlotMoves
from treespec.metrics.traffic import KINDS, Traffic
from treespec.model.decoder import ForwardBatch, Wanted
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.traffic_model import ModelSizes, PassShape, pass_traffic, told_commit_traffic, told_pass_traffic
from treespec.runner.encoding import (
    EVERY,
    ForwardPart,
    MovePart,
    forward_numbers,
    forward_parts,
    move_numbers,
    move_parts,
)
from treespec.serving.build import LoadedPlacement, load_placement
from treespec.serving.passes import serve_pass

SIZES = ModelSizes(num_layers=5, hidden_size=8, vocab_size=11, dtype_bytes=4)
SHAPE = PassShape(
    num_requests=2, num_tokens=3, num_keys=40, num_rows=4, names_rows=True, has_mask=True, only_likeliest=False
)
HIDDEN_BYTES = 2 * 3 * 8 * 4


def told(shape: PassShape, tensor: int, pipeline: int, rank: int) -> dict[str, tuple[int, int]]:
    traffic = pass_traffic(shape, SIZES, ParallelMesh(tensor, pipeline, rank))
    return {kind: (count["messages"], count["bytes"]) for kind, count in traffic.to_dict().items()}


def test_one_rank_tells_nobody_anything() -> None:
    alone = ParallelMesh()
    assert told(SHAPE, 1, 1, 0) == {}
    assert told_pass_traffic([SHAPE], alone).to_dict() == told_commit_traffic([3], alone).to_dict() == {}


def test_a_stage_sums_twice_per_layer_and_once_for_the_embedding() -> None:
    """Five layers on two stages are three and two; the vocabulary of 11 on two ranks is 6 and 5, padded to 6."""
    first, last = {"sum": (7, 7 * HIDDEN_BYTES), "send": (1, HIDDEN_BYTES)}, {"sum": (4, 4 * HIDDEN_BYTES)}
    assert told(SHAPE, 2, 2, 0) == told(SHAPE, 2, 2, 1) == first
    assert told(SHAPE, 2, 2, 2) == told(SHAPE, 2, 2, 3) == last | {"gather": (1, 4 * 6 * 4)}
    assert told(SHAPE, 2, 1, 1) == {"sum": (11, 11 * HIDDEN_BYTES), "gather": (1, 4 * 6 * 4)}
    assert told(SHAPE, 1, 2, 0) == {"send": (1, HIDDEN_BYTES)}
    assert told(SHAPE, 1, 2, 1) == {}


def test_greedy_rows_are_two_numbers_and_unwanted_ones_no_message() -> None:
    greedy = PassShape(2, 3, 40, 4, names_rows=True, has_mask=True, only_likeliest=True)
    assert told(greedy, 2, 1, 0)["gather"] == (1, 4 * 2 * 8)
    silent = PassShape(2, 3, 40, 0, names_rows=True, has_mask=True, only_likeliest=True)
    assert "gather" not in told(silent, 2, 1, 0)


def test_a_command_holds_what_the_others_cannot_know() -> None:
    driver, follower = ParallelMesh(2, 1, 0), ParallelMesh(2, 1, 1)
    numbers = 4 + 7 + 3 * 6 + 2 + 4 + 4  # 240 bits of mask are four numbers
    assert told_pass_traffic([SHAPE], driver).to_dict() == {"command": {"messages": 2, "bytes": 8 * numbers}}
    assert told_commit_traffic([0, 3], driver).to_dict() == {"command": {"messages": 2, "bytes": 8 * (4 + 2 + 6)}}
    assert told_commit_traffic([0, 0], driver).to_dict() == {}
    assert told_pass_traffic([SHAPE], follower).to_dict() == {}


@st.composite
def batches(draw: st.DrawFn) -> ForwardBatch:
    B, N, K = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    ids, positions, slots = (torch.from_numpy(rng.integers(0, 1000, (B, N))) for _ in range(3))
    visible = torch.from_numpy(rng.random((B, N, K)) < 0.5)
    bias = torch.zeros(B, N, K).masked_fill_(~visible, -torch.inf) if draw(st.booleans()) else None
    rows = torch.arange(draw(st.integers(0, B * N))) if draw(st.booleans()) else None
    regions = slice(2, 2 + B) if draw(st.booleans()) else torch.arange(0, 2 * B, 2)
    return ForwardBatch(ids, positions, slots.flatten(), regions, K, bias, rows, draw(st.sampled_from(Wanted)))


@given(parts=st.lists(st.tuples(st.integers(EVERY, 3), batches()), min_size=1, max_size=3))
@examples(100)
def test_a_pass_arrives_as_it_was_sent_in_as_many_numbers_as_predicted(parts: list[tuple[int, ForwardBatch]]) -> None:
    numbers = torch.cat([x.flatten() for x in forward_numbers([ForwardPart(*part) for part in parts])])
    assert len(numbers) == sum(shape_of(batch).told_numbers for _, batch in parts)
    arrived = list(forward_parts(numbers, len(parts), torch.float32, torch.device("cpu")))
    assert [part.owner for part in arrived] == [owner for owner, _ in parts]
    for (_, sent), part in zip(parts, arrived, strict=True):
        got = part.batch
        assert (got.num_keys, got.wanted) == (sent.num_keys, sent.wanted)
        assert indexes(got.regions) == indexes(sent.regions)
        for name in ("ids_BN", "positions_BN", "slots_T", "bias_BNK", "logit_rows"):
            ours, theirs = getattr(got, name), getattr(sent, name)
            assert (ours is None) == (theirs is None), name
            assert ours is None or torch.equal(ours, theirs), name


def indexes(regions: slice | torch.Tensor) -> list[int]:
    return list(range(regions.start, regions.stop)) if isinstance(regions, slice) else regions.tolist()


def test_commits_arrive_as_they_were_sent() -> None:
    parts = [
        MovePart(2, SlotMoves(np.array([5, 7]), np.array([4, 5]))),
        MovePart(0, SlotMoves(np.array([9]), np.array([1]))),
    ]
    numbers = torch.cat([x.flatten() for x in move_numbers(parts)])
    arrived = list(move_parts(numbers, 2))
    assert [part.owner for part in arrived] == [2, 0]
    for sent, got in zip(parts, arrived, strict=True):
        assert got.moves.sources.tolist() == sent.moves.sources.tolist()
        assert got.moves.targets.tolist() == sent.moves.targets.tolist()


def test_counters_survive_the_way_and_add_up() -> None:
    one, other = Traffic(), Traffic()
    one.count("sum", 100, 3)
    other.count("sum", 1)
    other.count("command", 24, 2)
    assert Traffic.from_numbers(one.numbers()) == one
    assert len(one.numbers()) == 2 * len(KINDS)
    assert (one + other).to_dict() == {
        "command": {"messages": 2, "bytes": 24},
        "sum": {"messages": 4, "bytes": 101},
    }


def test_a_job_on_one_rank_records_no_traffic(job: JobFolder) -> None:
    assert job.run() == 0
    assert all(entry["traffic"] == {} for name in job.names for entry in job.meta(name)["repeats"])


def test_a_pass_records_what_was_told_since_it_began(
    gqa: Pair, job: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what a pass before it left that broke off."""
    job.write()
    config = load_run_config(job.config_file)
    loaded = load_placement(config.placement, config.scenarios)
    asked: list[int] = []
    work = loaded.target_runner.submit

    def ask(placement: LoadedPlacement) -> dict[str, dict[str, dict[str, int]]]:
        asked.append(0)
        return {"driver": {"sum": {"messages": len(asked), "bytes": asked[-2] if len(asked) > 1 else 0}}}

    def submit(*arguments: Any) -> Any:
        asked[-1] += 1
        return work(*arguments)

    monkeypatch.setattr(LoadedPlacement, "traffic", ask)
    monkeypatch.setattr(loaded.target_runner, "submit", submit)
    totals = serve_pass(loaded, config.scenarios[0], gqa.prompts[:2]).totals
    assert totals.traffic == {"driver": {"sum": {"messages": 2, "bytes": totals.num_target_steps}}}


@pytest.mark.slow
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_the_counted_traffic_of_a_job_is_the_formula(job: JobFolder, tensor: int, pipeline: int) -> None:
    job.change(max_requests_per_batch=3)
    if tensor == 4:  # logits, as a verifier that samples wants them
        job.change(sampling={"temperature": 1.0})
    if (tensor, pipeline) == (2, 2):
        job.scenarios[2]["tree_layout"] = "sequences"
    counted: dict[str, list[dict[str, object]]] = {}
    # Some passes are split into micro-batches and some are not.
    job.placement |= {"tensor_parallel_degree": tensor, "pipeline_parallel_degree": pipeline, "micro_batch_tokens": 4}
    served_on(job, tensor, pipeline, lambda name: counted.update({name: job.meta(name)["repeats"]}))
    formula = predicted(job)
    assert set(counted) == set(formula) == set(job.names)
    for name, repeats in counted.items():
        assert [entry["traffic"] for entry in repeats] == [formula[name]] * 2, name
