"""What a placement asks of a machine and of its models, and the refusal where they cannot give it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from treespec.config import Placement, Scenario
from treespec.errors import CapacityError, ConfigError, PromptError
from treespec.kvcache.pool import CacheShape
from treespec.model.loader import OpenedModel, read_spec
from treespec.model.memory import MIB, free_bytes
from treespec.model.spec import ModelSpec
from treespec.parallel.mesh import ParallelMesh
from treespec.serving.prompts import listed_lengths


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


def num_regions_of(scenarios: Sequence[Scenario]) -> int:
    """Requests in flight of the widest scenario, each of which has a cache region."""
    return max(scenario.max_requests_per_batch for scenario in scenarios)


def prepare_device(placement: Placement) -> tuple[torch.dtype, torch.device]:
    """The dtype and device that this process computes with; sets its number of threads."""
    device = device_of(placement)
    torch.set_num_threads(placement.num_threads or _own_cores())
    return getattr(torch, placement.dtype), device


def _own_cores() -> int:
    """The cores that this process may use, shared with the other ranks of its machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def device_of(placement: Placement) -> torch.device:
    """The device that this process computes on. Raises ConfigError where it is not there or would not do."""
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


def region_capacity_of(placement: Placement) -> int:
    """Slots that hold the longest sequence and the largest tree beside it."""
    return placement.max_sequence_length + placement.max_tree_nodes


def require_positions(model: OpenedModel, placement: Placement) -> None:
    """Refuse sequences longer than the model can tell positions apart. Raises ConfigError."""
    allowed = model.spec.max_positions
    if placement.max_sequence_length > allowed:
        raise ConfigError(
            "max_sequence_length is beyond the positions the model knows",
            where=model.ref.name,
            received=placement.max_sequence_length,
            allowed=f"at most {allowed}",
        )


def require_prompt_positions(
    folders: Sequence[Path], prompts: Sequence[Sequence[int]], max_new_tokens: int, where: str
) -> None:
    """Refuse prompts that with their outputs reach beyond a model's positions, by index. Raises TreespecError."""
    for folder in folders:
        limit = read_spec(folder).max_positions
        long = {index: len(ids) for index, ids in enumerate(prompts) if len(ids) + max_new_tokens > limit}
        if not long:
            continue
        room = limit - max(long.values())
        raise PromptError(
            "prompts and their outputs reach beyond the positions the model knows",
            where=f"{where}, model {folder}",
            received=f"{listed_lengths(long)}, and {max_new_tokens} new tokens",
            allowed=f"at most {limit} together",
            fix="shorten the prompts" + (f", or lower --max-new-tokens to {room}" if room > 0 else ""),
        )


def require_memory(
    placement: Placement, caches: Sequence[CacheShape], dtype: torch.dtype, device: torch.device
) -> None:
    """Refuse a batch whose caches exceed the budget; serving fewer requests would measure another batch size."""
    needed = sum(cache.num_bytes(dtype) for cache in caches)
    free = free_bytes(device)
    budget = int(free * placement.cache_fraction)
    if needed > budget:
        num_regions = max(cache.num_regions for cache in caches)
        per_request = needed // num_regions
        raise CapacityError(
            "the key/value caches do not fit their budget",
            where=f"placement {placement.name!r}",
            received=f"{needed // MIB} MiB for max_requests_per_batch {num_regions}",
            allowed=f"{budget // MIB} MiB = cache_fraction {placement.cache_fraction} of {free // MIB} MiB free, "
            f"enough for {budget // per_request} requests",
            fix="lower the batch size or max_sequence_length, or raise cache_fraction",
        )
