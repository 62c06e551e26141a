"""From a placement to loaded models with caches, and from a scenario to an engine over them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from treespec.config import Placement, Scenario
from treespec.draft.protocol import Drafter
from treespec.errors import CapacityError, ConfigError
from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import Decoder
from treespec.model.loader import LoadedModel, OpenedModel, open_model, require_same_vocabulary
from treespec.model.memory import MIB, free_bytes
from treespec.model.spec import ModelSpec
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.process_group import ProcessGroup
from treespec.request import Request, SamplingParams
from treespec.runner import ModelRunner, cache_shape
from treespec.runner.commands import Driver, follow
from treespec.scheduler import Scheduler
from treespec.serving.engine import Engine, OnVerified
from treespec.serving.plugins import Methods, load_methods
from treespec.serving.shapes import Shapes
from treespec.serving.speculation import drafter_of, verifier_of


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

    @property
    def draft(self) -> LoadedModel | None:
        """The first draft model in use."""
        return self.drafts[min(self.drafts)] if self.drafts else None

    def reset(self) -> None:
        """Forget all cached tokens, after a pass that broke off."""
        for runner in (self.target_runner, *self.draft_runners.values()):
            runner.reset()

    def engine(self, scenario: Scenario, on_verified: OnVerified | None = None) -> Engine:
        """A fresh engine for one pass; the caches are reused."""
        return Engine(
            self.target_runner,
            self.drafter(scenario),
            verifier_of(scenario, self.methods),
            Scheduler(scenario.max_requests_per_batch, scenario.max_tokens_per_batch),
            self.target.tokenizer.decode,
            on_verified,
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


def load_placement(
    placement: Placement, scenarios: Sequence[Scenario], group: ProcessGroup | None = None
) -> LoadedPlacement:
    """Load the models and size the caches for the widest scenario. Raises TreespecError before any token is made.

    Of several ranks only the driver calls this; the drafts are its own.
    """
    methods = load_methods(placement.plugins)
    for scenario in scenarios:
        verifier_of(scenario, methods)
    used = sorted({model for scenario in scenarios for model in scenario.draft_models})
    opened = open_model(placement.target)
    opened_drafts = {index: open_model(placement.drafts[index]) for index in used}
    for draft in opened_drafts.values():
        require_same_vocabulary(opened, draft)
    for model in (opened, *opened_drafts.values()):
        _require_positions(model, placement)
    dtype, device = prepare_device(placement)
    target = _load_target(placement, opened, group)
    drafts = {index: draft.load(dtype, device, ParallelMesh()) for index, draft in opened_drafts.items()}
    num_regions = _num_regions(scenarios)
    _require_memory(placement, [m.decoder for m in (target, *drafts.values())], num_regions, dtype, device)
    capacity = _region_capacity(placement)
    runners = {index: ModelRunner(draft.decoder, num_regions, capacity) for index, draft in drafts.items()}
    driver = Driver(group) if group is not None else None
    target_runner = ModelRunner(target.decoder, num_regions, capacity, driver)
    shapes = Shapes(target_runner, runners, scenarios)
    return LoadedPlacement(placement, methods, target, target_runner, drafts, runners, shapes)


def serve_as_follower(placement: Placement, scenarios: Sequence[Scenario], group: ProcessGroup) -> None:
    """Hold this rank's part of the target and do what the driver says, until it stops."""
    opened = open_model(placement.target)
    target = _load_target(placement, opened, group)
    num_regions = _num_regions(scenarios)
    dtype, device = target.decoder.dtype, target.decoder.device
    _require_memory(placement, [target.decoder], num_regions, dtype, device)
    pool = KVCachePool(cache_shape(target.decoder, num_regions, _region_capacity(placement)), dtype, device)
    follow(target.decoder, pool, group)


def _load_target(placement: Placement, opened: OpenedModel, group: ProcessGroup | None) -> LoadedModel:
    mesh = mesh_of(placement, 0) if group is None else group.mesh
    require_divisible(opened.spec, mesh, placement.name)
    dtype, device = prepare_device(placement)
    return opened.load(dtype, device, mesh, group)


def mesh_of(placement: Placement, rank: int) -> ParallelMesh:
    """The placement's ranks as one of them sees them."""
    degrees = placement.tensor_parallel_degree, placement.pipeline_parallel_degree
    return ParallelMesh(*degrees, rank, placement.layer_split)


def require_divisible(spec: ModelSpec, mesh: ParallelMesh, name: str) -> None:
    """Refuse degrees that the model's heads and layers cannot be divided by. Raises ConfigError."""
    where = f"placement {name!r}"
    degree, heads, kv_heads = mesh.tensor_degree, spec.num_heads, spec.num_kv_heads
    if heads % degree or (kv_heads % degree and degree % kv_heads):
        raise ConfigError(
            "attention heads cannot be divided among the ranks",
            where=where,
            received=f"tensor_parallel_degree {degree} for {heads} heads and {kv_heads} key/value heads",
            allowed=", ".join(
                str(d) for d in range(1, heads + 1) if not heads % d and not (kv_heads % d and d % kv_heads)
            ),
        )
    if mesh.pipeline_degree > spec.num_layers:
        raise ConfigError(
            "more pipeline stages than layers",
            where=where,
            received=f"pipeline_parallel_degree {mesh.pipeline_degree}",
            allowed=f"1 to {spec.num_layers}",
        )
    if mesh.layer_split is not None and sum(mesh.layer_split) != spec.num_layers:
        raise ConfigError(
            "layer_split is not the model's number of layers",
            where=where,
            received=f"{list(mesh.layer_split)}, together {sum(mesh.layer_split)}",
            allowed=f"{spec.num_layers} layers",
        )


def _num_regions(scenarios: Sequence[Scenario]) -> int:
    return max(scenario.max_requests_per_batch for scenario in scenarios)


def prepare_device(placement: Placement) -> tuple[torch.dtype, torch.device]:
    """The dtype and device that this process computes with; sets its number of threads."""
    device = device_of(placement)
    torch.set_num_threads(placement.num_threads or len(os.sched_getaffinity(0)))
    return getattr(torch, placement.dtype), device


def device_of(placement: Placement) -> torch.device:
    if placement.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "the device is not there",
            where=f"placement {placement.name!r}",
            received="device: cuda",
            allowed="cpu (this machine has no usable CUDA device)",
            fix="choose the device cpu",
        )
    if placement.device == "cpu" and placement.dtype == "float16":
        raise ConfigError(
            "float16 is a storage format on CPUs, computing in it is far slower than in float32",
            where=f"placement {placement.name!r}",
            received="dtype: float16",
            allowed="float32 or bfloat16",
        )
    if placement.device == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(placement.device)


def _region_capacity(placement: Placement) -> int:
    return placement.max_sequence_length + placement.max_tree_nodes


def _require_positions(model: OpenedModel, placement: Placement) -> None:
    allowed = model.spec.max_positions
    if placement.max_sequence_length > allowed:
        raise ConfigError(
            "max_sequence_length is beyond the positions the model knows",
            where=model.ref.name,
            received=placement.max_sequence_length,
            allowed=f"at most {allowed}",
        )


def _require_memory(
    placement: Placement, decoders: Sequence[Decoder], num_regions: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Refuse a batch whose caches exceed the budget; serving fewer requests would measure another batch size."""
    needed = 0
    for decoder in decoders:
        needed += cache_shape(decoder, num_regions, _region_capacity(placement)).num_bytes(dtype)
    free = free_bytes(device)
    budget = int(free * placement.cache_fraction)
    if needed > budget:
        per_request = needed // num_regions
        raise CapacityError(
            "the key/value caches do not fit their budget",
            where=f"placement {placement.name!r}",
            received=f"{needed // MIB} MiB for max_requests_per_batch {num_regions}",
            allowed=f"{budget // MIB} MiB = cache_fraction {placement.cache_fraction} of {free // MIB} MiB free, "
            f"enough for {budget // per_request} requests",
            fix="lower the batch size or max_sequence_length, or raise cache_fraction",
        )
