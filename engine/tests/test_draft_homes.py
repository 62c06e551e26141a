"""Draft models on the driver, on ranks of their own, or on every rank: the same trees, wherever they are grown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from engine.tests.conftest import TinyModels
from engine.tests.decoding import Pair, Serving, build_engine, chain_row
from engine.tests.jobs import JobFolder
from engine.tests.ranked import predicted
from engine.tests.test_parallel import served_on
from treespec.config import Placement, validate_run_config
from treespec.draft.growth import FixedTopology
from treespec.draft.ssm import SsmDrafter
from treespec.errors import ConfigError
from treespec.kvcache.pool import KVCachePool
from treespec.model.absent import AbsentDecoder
from treespec.model.decoder import Decoder
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.process_group import Arrival
from treespec.runner import ModelRunner, cache_shape
from treespec.runner.commands import Driver, HeldModel
from treespec.runner.encoding import ForwardPart, MovePart
from treespec.serving.homes import draft_owners
from treespec.tree import Topology

PLACEMENTS = ("driver", "own_ranks", "replicated")


class Owners(Driver):
    """Other ranks in this process: each has a cache of its own and does what it is told when it is told."""

    def __init__(self, decoder: Decoder, ranks: Sequence[int], num_regions: int, region_capacity: int) -> None:
        shape = cache_shape(decoder, num_regions, region_capacity)
        self.held = {rank: HeldModel(decoder, KVCachePool(shape, decoder.dtype, decoder.device)) for rank in ranks}
        self.rows: dict[ForwardPart, torch.Tensor] = {}
        self.num_requests = dict.fromkeys(ranks, 0)

    @property
    def rank(self) -> int:
        return 0

    @torch.inference_mode()
    def forward(self, parts: Sequence[ForwardPart]) -> None:
        for part in parts:
            if part.owner in self.held:
                held = self.held[part.owner]
                self.rows[part] = held.decoder.forward(part.batch, held.pool).rows
                self.num_requests[part.owner] += len(part.batch.ids_BN)

    def rows_of(self, part: ForwardPart, dtype: torch.dtype, vocab_size: int) -> Arrival:
        return Arrival(self.rows.pop(part))

    def move(self, parts: Sequence[MovePart]) -> None:
        for part in parts:
            if part.owner in self.held:
                self.held[part.owner].pool.move([part.moves])


@pytest.mark.parametrize("owners", [(1,), (0, 1), (1, 0, 2)], ids=["another", "both", "three"])
def test_trees_are_the_same_whoever_grows_them(gqa: Pair, owners: tuple[int, ...]) -> None:
    """Regions of five requests that come and go are dealt out to the owners, this rank among them or not."""
    serving = Serving(expansion=(2, 2, 1), batch_size=5)
    expected = build_engine(gqa.target, gqa.draft, serving)
    bench = build_engine(gqa.target, gqa.draft, serving)
    decoder, local = gqa.draft.decoder, -(-5 // len(owners))
    others = Owners(decoder, [rank for rank in owners if rank], local, 120 + 15)
    own = decoder if 0 in owners else AbsentDecoder(decoder.spec, decoder.dtype, decoder.device)
    runner = ModelRunner(own, 5, 120 + 15, others, owners)
    assert runner.pool.shape.num_regions == (local if 0 in owners else 0)
    bench.engine._drafter = SsmDrafter(runner, FixedTopology(Topology.from_expansion(serving.expansion)))
    profiles = []
    for engine in (expected.engine, bench.engine):
        requests = [serving.request(index, prompt) for index, prompt in enumerate(gqa.prompts)]
        engine.add(requests)
        engine.run()
        profiles.append([(r.output_token_ids, engine.profiles[r.request_id].accepted_per_step) for r in requests])
    assert profiles[0] == profiles[1]
    assert all(others.num_requests.values()), "every owner computed something"
    assert not others.rows, "everything was taken"


def test_rows_come_back_in_the_order_of_the_requests(gqa: Pair) -> None:
    """Owners answer for every other region; rows of no, one and several logits are mixed."""
    decoder, counts = gqa.draft.decoder, [0, 2, 1, 3]
    whole = ModelRunner(decoder, 4, 16)
    shared = ModelRunner(decoder, 4, 16, Owners(decoder, [1], 2, 16), (1, 0))
    results = []
    for runner in (whole, shared):
        regions = [runner.allocator.admit() for _ in counts]
        rows = [chain_row(runner, r, [9 + r, 20 + r, 33 + r], n) for r, n in zip(regions, counts, strict=True)]
        results.append(runner.result(runner.submit(rows)))
    assert results[0].starts == results[1].starts == (0, 0, 2, 3, 6)
    torch.testing.assert_close(results[1].logits_RV, results[0].logits_RV, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("where", "expected"),
    [("driver", [(2,), (2,)]), ("own_ranks", [(3,), (0,)]), ("replicated", [(0, 1, 2, 3), (0, 1, 2, 3)])],
)
def test_owners_of_two_drafts_on_four_ranks(tiny: TinyModels, where: str, expected: list[tuple[int, ...]]) -> None:
    placement = Placement(name="p", target={"path": tiny.target("gqa")}, draft_placement=where)  # type: ignore[arg-type]
    assert [draft_owners(placement, ParallelMesh(2, 2, 1), index) for index in (0, 1)] == expected


def test_more_drafts_than_ranks_of_their_own_are_one_error(job: JobFolder) -> None:
    job.placement |= {"draft_placement": "own_ranks", "drafts": job.placement["drafts"] * 2}
    with pytest.raises(ConfigError, match=r"'own_ranks' with 2 draft models on 1 ranks; allowed: at most one"):
        validate_run_config({"placement": job.placement, "scenarios": job.scenarios}, where="job")


def two_drafts(job: JobFolder, tiny: TinyModels) -> None:
    """One scenario whose trees two models grow, the second of which never agrees."""
    job.placement["drafts"] = [*job.placement["drafts"], {"path": str(tiny.contrary_draft("gqa"))}]
    drafters: list[dict[str, Any]] = [
        {"kind": "ssm", "model": 0, "expansion": [2, 1]},
        {"kind": "ssm", "model": 1, "expansion": [1, 2]},
    ]
    job.scenarios = [job.scenarios[-1] | {"expansion": [], "drafters": drafters}]


@pytest.mark.slow
@pytest.mark.parametrize("num_drafts", [1, 2])
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (2, 2)])
def test_every_home_gives_the_tokens_of_one_process(
    job: JobFolder, tiny: TinyModels, tensor: int, pipeline: int, num_drafts: int
) -> None:
    if num_drafts == 2:
        two_drafts(job, tiny)
    job.change(max_requests_per_batch=3)
    alone = served_on(job, 1, 1)
    for where in PLACEMENTS:
        job.placement["draft_placement"] = where
        counted: dict[str, list[Any]] = {}
        served = served_on(job, tensor, pipeline, lambda name: counted.update({name: job.meta(name)["repeats"]}))  # noqa: B023
        assert served == alone, where
        formula = predicted(job)
        for name in job.names:
            assert [entry["traffic"] for entry in counted[name]] == [formula[name]] * 2, (where, name)
            drafts = job.scenarios[0].get("drafters") or "incremental" not in name
            is_told = "draft" in formula[name]["all_ranks"]
            assert is_told == bool(drafts and where != "driver"), (where, name)
