"""What a job of several ranks should tell, predicted from a run of the same job on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.tests.jobs import JobFolder
from treespec.config import Placement, Scenario, load_run_config
from treespec.metrics.traffic import Traffic
from treespec.model.decoder import ForwardBatch, Wanted
from treespec.model.spec import ModelSpec
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.traffic_model import (
    ModelSizes,
    PassShape,
    pass_traffic,
    returned_traffic,
    told_commit_traffic,
    told_pass_traffic,
)
from treespec.runner import ForwardRow, ModelRunner
from treespec.runner.batch import Stripes, pack_rows
from treespec.serving.build import load_placement
from treespec.serving.homes import draft_owners
from treespec.serving.limits import mesh_of
from treespec.serving.passes import serve_pass
from treespec.serving.prompts import load_prompts


def shape_of(batch: ForwardBatch) -> PassShape:
    """What decides the traffic of a micro-batch."""
    B, N = batch.ids_BN.shape
    likeliest = batch.wanted is Wanted.LIKELIEST
    is_named, has_mask = batch.logit_rows is not None, batch.bias_BNK is not None
    return PassShape(B, N, batch.num_keys, batch.num_rows, is_named, has_mask, likeliest)


def sizes_of(spec: ModelSpec) -> ModelSizes:
    """In float32."""
    return ModelSizes(spec.num_layers, spec.hidden_size, spec.vocab_size, 4)


@dataclass
class Prediction:
    """The traffic of every rank of a mesh, from what a runner on one rank is asked to do."""

    ranks: list[ParallelMesh]
    by_rank: list[Traffic] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.by_rank = [Traffic() for _ in self.ranks]

    def watch_target(self, runner: ModelRunner, micro_batch_tokens: int) -> None:
        """Count what the target's passes and commits would tell on these ranks."""
        sizes = sizes_of(runner.decoder.spec)

        def passed(rows: Sequence[ForwardRow], wanted: Wanted) -> None:
            num_tokens = sum(len(row.token_ids) for row in rows)
            size = -(-len(rows) // self.ranks[0].num_micro_batches(num_tokens, micro_batch_tokens))
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
            shapes = [shape_of(packed(runner, part, 1, wanted)) for part in parts]
            for rank, mesh in enumerate(self.ranks):
                told = told_pass_traffic(shapes, mesh)
                self.by_rank[rank] += sum((pass_traffic(shape, sizes, mesh) for shape in shapes), told)

        self._watch(runner, 1, passed)

    def watch_draft(self, runner: ModelRunner, owners: Sequence[int]) -> None:
        """Count what a draft model's passes and commits would tell if these ranks owned it."""
        if list(owners) == [self.ranks[0].driver]:
            return
        sizes = sizes_of(runner.decoder.spec)

        def passed(rows: Sequence[ForwardRow], wanted: Wanted) -> None:
            shapes = {}
            for stripe, owner in enumerate(owners):
                if own := [row for row in rows if row.lease.region % len(owners) == stripe]:
                    shapes[owner] = shape_of(packed(runner, own, len(owners), wanted))
            for rank, mesh in enumerate(self.ranks):
                self.by_rank[rank] += told_pass_traffic(list(shapes.values()), mesh)
                if rank in shapes and not mesh.is_driver:
                    self.by_rank[rank] += returned_traffic(shapes[rank], sizes)

        self._watch(runner, len(owners), passed)

    def _watch(self, runner: ModelRunner, num_owners: int, passed: Any) -> None:
        submit, commit = runner.submit, runner.commit

        def submitting(rows: Sequence[ForwardRow], wanted: Wanted = Wanted.LOGITS) -> Any:
            passed(rows, wanted)
            return submit(rows, wanted)

        def committing(paths: Sequence[tuple[int, Sequence[int]]]) -> None:
            moved = [0] * num_owners
            for region, offsets in paths:
                moved[region % num_owners] += sum(place != offset for place, offset in enumerate(offsets))
            for rank, mesh in enumerate(self.ranks):
                self.by_rank[rank] += told_commit_traffic(moved, mesh)
            commit(paths)

        runner.submit, runner.commit = submitting, committing  # type: ignore[method-assign]

    def record(self) -> dict[str, Any]:
        """As the meta file has it."""
        driver = self.ranks[0].driver
        return {"driver": self.by_rank[driver].to_dict(), "all_ranks": sum(self.by_rank, Traffic()).to_dict()}


def packed(runner: ModelRunner, rows: Sequence[ForwardRow], num_owners: int, wanted: Wanted) -> ForwardBatch:
    """The micro-batch of these rows."""
    stripes = Stripes(num_owners, runner.allocator.region_capacity)
    return pack_rows(rows, runner.allocator, stripes, torch.float32, torch.device("cpu"), wanted)


def predicted(job: JobFolder) -> dict[str, dict[str, Any]]:
    """Scenario -> what one pass of it tells on the placement's ranks; served in this process, on one."""
    job.write()
    config = load_run_config(job.config_file)
    ranked = config.placement
    alone = ranked.model_copy(update={"tensor_parallel_degree": 1, "pipeline_parallel_degree": 1})
    return {scenario.name: _predicted(scenario, ranked, alone) for scenario in config.scenarios}


def _predicted(scenario: Scenario, ranked: Placement, alone: Placement) -> dict[str, Any]:
    loaded = load_placement(alone.model_copy(update={"draft_placement": "driver"}), [scenario])
    prediction = Prediction([mesh_of(ranked, rank) for rank in range(ranked.num_ranks)])
    prediction.watch_target(loaded.target_runner, ranked.min_part_tokens)
    for index, runner in loaded.draft_runners.items():
        prediction.watch_draft(runner, draft_owners(ranked, prediction.ranks[0], index))
    serve_pass(loaded, scenario, load_prompts(scenario, loaded.target.tokenizer, ranked.max_sequence_length))
    return prediction.record()
