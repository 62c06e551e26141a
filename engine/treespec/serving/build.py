"""From a placement to loaded models with caches, and from a scenario to an engine over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from treespec.config import Placement, Scenario
from treespec.draft.protocol import Drafter
from treespec.errors import TreespecError
from treespec.kvcache.pool import KVCachePool
from treespec.metrics.traffic import Traffic
from treespec.model.decoder import Decoder
from treespec.model.fitted import fitted
from treespec.model.loader import LoadedModel, OpenedModel, open_model, require_same_vocabulary
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.process_group import ProcessGroup
from treespec.request import Request, SamplingParams
from treespec.runner import ModelRunner, Stripes, cache_shape
from treespec.runner.commands import TARGET, Driver, HeldModel, collect_traffic, follow
from treespec.scheduler import Scheduler
from treespec.serving.engine import Engine, OnVerified
from treespec.serving.homes import draft_number, draft_owners, used_drafts
from treespec.serving.limits import (
    mesh_of,
    num_regions_of,
    prepare_device,
    region_capacity_of,
    require_divisible,
    require_memory,
    require_positions,
)
from treespec.serving.offloading import offload_meta, offloader_of, streamable, take_offload_counts
from treespec.serving.plugins import Methods, load_methods
from treespec.serving.shapes import Shapes
from treespec.serving.speculation import drafter_of, verifier_of
from treespec.tree.layout import LAYOUTS


@dataclass(frozen=True)
class LoadedPlacement:
    """The models of a placement with their caches; serves one scenario after another."""

    placement: Placement
    methods: Methods
    target: LoadedModel
    target_runner: ModelRunner
    drafts: Mapping[int, LoadedModel]  # those that a scenario drafts with, by their place in the placement
    draft_runners: Mapping[int, ModelRunner]
    shapes: Shapes
    group: ProcessGroup | None = None  # the ranks that hold the models together with this one

    @property
    def draft(self) -> LoadedModel | None:
        """The first draft model in use."""
        return self.drafts[min(self.drafts)] if self.drafts else None

    def reset(self) -> None:
        """Forget all cached tokens, after a pass that broke off."""
        for runner in (self.target_runner, *self.draft_runners.values()):
            runner.reset()

    def traffic(self) -> dict[str, dict[str, dict[str, int]]]:
        """What the ranks handed over since this was last asked, as records hold it; empty on one rank."""
        if self.group is None:
            return {}
        by_rank = collect_traffic(self.group)
        driver = by_rank[self.group.mesh.rank]
        return {"driver": driver.to_dict(), "all_ranks": sum(by_rank, Traffic()).to_dict()}

    def offload_counts(self) -> dict[str, int]:
        """The target's weights that came by on this rank since this was last asked; empty if all of them stay."""
        return take_offload_counts(self.target)

    def offload_meta(self, scenarios: Sequence[Scenario]) -> dict[str, Any]:
        """How the target's weights share their budget on this rank; empty if all of them stay."""
        runners = [self.target_runner, *self.draft_runners.values()]
        return offload_meta(self.placement, scenarios, self.target, runners, self.drafts)

    @property
    def survivable(self) -> tuple[type[Exception], ...]:
        """Failures of a pass after which others can be served.

        Of several ranks, one that fails inside a pass is out of step with the others.
        """
        return (TreespecError,) if self.group is not None else (TreespecError, RuntimeError, MemoryError)

    def engine(self, scenario: Scenario, on_verified: OnVerified | None = None) -> Engine:
        """A fresh engine for one pass; the caches are reused."""
        return Engine(
            self.target_runner,
            self.drafter(scenario),
            verifier_of(scenario, self.methods),
            Scheduler(scenario.max_requests_per_batch, scenario.max_tokens_per_batch),
            self.target.tokenizer.decode,
            on_verified,
            LAYOUTS[scenario.tree_layout],
        )

    def drafter(self, scenario: Scenario) -> Drafter:
        """A fresh drafter."""
        shape = partial(self.shapes.rule, scenario)
        return drafter_of(scenario, self.methods, self.draft_runners, shape, self.target.decoder.spec.vocab_size)

    def request(self, scenario: Scenario, request_id: int, prompt_token_ids: Sequence[int]) -> Request:
        """A request with this placement's limits and the scenario's stopping rule."""
        params = SamplingParams(
            max_new_tokens=scenario.max_new_tokens,
            max_sequence_length=self.placement.max_sequence_length,
            ignore_eos=scenario.ignore_eos,
            stop_strings=scenario.stop_strings,
            sampling=scenario.sampling,
        )
        return Request(request_id, tuple(prompt_token_ids), params, self.target.decoder.spec.eos_token_ids)


def methods_of(placement: Placement, scenarios: Sequence[Scenario]) -> Methods:
    """Its drafters and verifiers, once each scenario's are known and would be lossless. Raises ConfigError."""
    methods = load_methods(placement.plugins)
    for scenario in scenarios:
        verifier_of(scenario, methods)
    return methods


def load_placement(
    placement: Placement, scenarios: Sequence[Scenario], group: ProcessGroup | None = None
) -> LoadedPlacement:
    """Load the models and size the caches for the widest scenario. Raises TreespecError before any token is made.

    Of several ranks the driver calls this and the others ``serve_as_follower``; both wait until all have loaded.
    """
    methods = methods_of(placement, scenarios)
    opened = open_model(placement.target)
    opened_drafts = {index: open_model(placement.drafts[index]) for index in used_drafts(scenarios)}
    for draft in opened_drafts.values():
        require_same_vocabulary(opened, draft)
    for model in (opened, *opened_drafts.values()):
        require_positions(model, placement)
    target = _load_target(placement, opened, group)
    homes = _Homes(placement, target.decoder, num_regions_of(scenarios))
    drafts = {index: homes.load(index, draft) for index, draft in opened_drafts.items()}
    homes.require_memory({index: draft.decoder for index, draft in drafts.items()})
    num_regions, capacity = homes.num_regions, region_capacity_of(placement)
    driver = Driver(group) if group is not None else None
    parts = placement.min_part_tokens
    target_runner = ModelRunner(target.decoder, num_regions, capacity, driver, micro_batch_tokens=parts)
    draft_runners = {index: homes.runner(index, draft.decoder, group) for index, draft in drafts.items()}
    if group is not None:
        group.meet()
    shapes = Shapes(target_runner, draft_runners, scenarios, measure_costs=placement.measure_costs)
    return LoadedPlacement(placement, methods, target, target_runner, drafts, draft_runners, shapes, group)


def serve_as_follower(placement: Placement, scenarios: Sequence[Scenario], group: ProcessGroup) -> None:
    """Hold this rank's part of the target and its draft models, and do what the driver says, until it stops."""
    target = _load_target(placement, open_model(placement.target), group)
    homes = _Homes(placement, target.decoder, num_regions_of(scenarios))
    owned = [index for index in used_drafts(scenarios) if group.mesh.rank in homes.owners(index)]
    drafts = {index: homes.load(index, open_model(placement.drafts[index])).decoder for index in owned}
    homes.require_memory(drafts)
    held = {TARGET: homes.held(target.decoder, homes.num_regions)}
    held |= {draft_number(i): homes.held(decoder, homes.num_local(i)) for i, decoder in drafts.items()}
    group.meet()
    follow(held, group)


@dataclass(frozen=True)
class _Homes:
    """Where the draft models are, seen from the rank that holds this part of the target."""

    placement: Placement
    target: Decoder
    num_regions: int

    def owners(self, draft: int) -> tuple[int, ...]:
        return draft_owners(self.placement, self.target.mesh, draft)

    def num_local(self, draft: int) -> int:
        """Regions of a draft model's cache on each of its owners."""
        return Stripes(len(self.owners(draft)), region_capacity_of(self.placement)).num_local(self.num_regions)

    def load(self, draft: int, opened: OpenedModel) -> LoadedModel:
        """The weights where this rank owns the model, otherwise only what is known of it; as wide as the target."""
        dtype, device = self.target.dtype, self.target.device
        is_here = self.target.mesh.rank in self.owners(draft)
        model = opened.load(dtype, device, ParallelMesh()) if is_here else opened.describe(dtype, device)
        return fitted(model, self.target.spec.vocab_size)

    def runner(self, draft: int, decoder: Decoder, group: ProcessGroup | None) -> ModelRunner:
        """The driver's runner of a draft model; where this rank is the only owner there is nobody to tell."""
        capacity, owners = region_capacity_of(self.placement), self.owners(draft)
        if group is None or owners == (group.mesh.rank,):
            return ModelRunner(decoder, self.num_regions, capacity)
        return ModelRunner(decoder, self.num_regions, capacity, Driver(group, draft_number(draft)), owners)

    def held(self, decoder: Decoder, num_regions: int) -> HeldModel:
        """A model with its cache, for a rank that follows."""
        shape = cache_shape(decoder, num_regions, region_capacity_of(self.placement))
        return HeldModel(decoder, KVCachePool(shape, decoder.dtype, decoder.device))

    def require_memory(self, drafts: Mapping[int, Decoder]) -> None:
        """Refuse caches of this rank that exceed the budget. Raises CapacityError."""
        capacity, rank = region_capacity_of(self.placement), self.target.mesh.rank
        caches = [cache_shape(self.target, self.num_regions, capacity)]
        for index, decoder in drafts.items():
            if rank in self.owners(index):
                caches.append(cache_shape(decoder, self.num_local(index), capacity))
        require_memory(self.placement, caches, self.target.dtype, self.target.device)


def _load_target(placement: Placement, opened: OpenedModel, group: ProcessGroup | None) -> LoadedModel:
    mesh = mesh_of(placement, 0) if group is None else group.mesh
    require_divisible(opened.spec, mesh, placement.name)
    dtype, device = prepare_device(placement)
    opened = streamable(opened, placement)
    return opened.load(dtype, device, mesh, group, offloader_of(placement, dtype, device, group))
