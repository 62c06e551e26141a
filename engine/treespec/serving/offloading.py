"""Offloading as a placement asks for it, and what its records say of it.

Legend: B requests, N nodes of a tree, K key slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from treespec.config import Placement, Scenario, hash_model
from treespec.errors import ConfigError
from treespec.model.conversion.convert import ConversionSettings, convert
from treespec.model.loader import LoadedModel, OpenedModel, open_model
from treespec.model.offload.keeper import Offloader
from treespec.model.offload.plan import MIB
from treespec.model.spec import ModelSpec
from treespec.parallel.process_group import ProcessGroup
from treespec.runner import ModelRunner
from treespec.serving.limits import region_capacity_of

ACTIVATIONS = 4
"""Copies of the widest intermediate result of a pass that are alive at once: input, output, and two on the way."""


def offloader_of(
    placement: Placement, dtype: torch.dtype, device: torch.device, group: ProcessGroup | None
) -> Offloader | None:
    """Keeps this rank's part of the target within its budget; None where everything stays on the device."""
    if placement.offload is None:
        return None
    assert placement.offload_reserve_mib is not None
    where = f"placement {placement.name!r}, {placement.target.name}"
    offloader = Offloader(placement.offload, int(placement.offload_reserve_mib * MIB), dtype, device, where)
    if group is not None:
        offloader.on_streamed = lambda num_bytes: group.traffic.count("weights", num_bytes)
    return offloader


def streamable(opened: OpenedModel, placement: Placement) -> OpenedModel:
    """The same model as a checkpoint whose files hold what is to be streamed; made in ``converted_models`` if need be.

    Raises TreespecError, for want of space among others.
    """
    ref = opened.ref
    if placement.offload == "disk" and not any(ref.path.glob("*.safetensors")):
        raise ConfigError(
            "a model without weight files cannot be streamed from disk",
            where=str(ref.path),
            allowed="offload: host, or a folder with safetensors files",
        )
    if placement.offload != "disk" or (ref.inflation is None and ref.quantisation is None):
        return opened
    settings = ConversionSettings(inflation=ref.inflation, quantisation=ref.quantisation)
    identity = hash_model(ref.path) + settings.model_dump_json()
    name = f"{ref.path.parent.name}-{ref.path.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    folder = convert(ref.path, settings, placement.converted_models / name)
    done = {"path": folder, "label": ref.name, "inflation": None, "quantisation": None}
    return replace(open_model(ref.model_copy(update=done)), made_from=ref)


def take_offload_counts(target: LoadedModel) -> dict[str, int]:
    """What came by on this rank since this was last asked; empty where everything stays."""
    if target.offloader is None:
        return {}
    counts = target.offloader.take_counts()
    return {"num_units": counts.num_units, "num_bytes": counts.num_bytes, "wait_us": counts.wait_us}


def offload_meta(
    placement: Placement,
    scenarios: Sequence[Scenario],
    target: LoadedModel,
    runners: Sequence[ModelRunner],
    drafts: Mapping[int, LoadedModel],
) -> dict[str, Any]:
    """The plan of this rank, and what its device holds beside the budget: the stated workspace. Empty if all stay."""
    if target.offloader is None:
        return {}
    assert target.offloader.plan is not None
    itemsize = target.decoder.dtype.itemsize
    workspace = {
        "caches": sum(runner.pool.kv_2LSGD.numel() * itemsize for runner in runners),
        "drafts": sum(draft.num_parameters * itemsize for draft in drafts.values()),
        "expansion": target.offloader.expansion_bytes,
        "activations": ACTIVATIONS * itemsize * _widest_result(target.decoder.spec, placement, scenarios),
    }
    plan = target.offloader.plan.to_dict()
    return plan | {"workspace": workspace, "workspace_bytes": sum(workspace.values())}


def _widest_result(spec: ModelSpec, placement: Placement, scenarios: Sequence[Scenario]) -> int:
    """Elements: FFN or logits of all tokens of a pass, or the attention scores of a layer."""
    num_tokens = max(max(s.max_tokens_per_batch, s.max_requests_per_batch * s.num_target_slots) for s in scenarios)
    wide = num_tokens * max(2 * spec.ffn_size, 3 * spec.hidden_size, spec.vocab_size)
    return max(wide, num_tokens * spec.num_heads * region_capacity_of(placement))
