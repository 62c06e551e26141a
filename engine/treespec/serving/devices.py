"""What this machine can compute on."""

from __future__ import annotations

import os
from typing import Any

import torch

from treespec.metrics.environment import describe_environment


def describe_devices() -> dict[str, Any]:
    """CPU threads and memory, every CUDA device, the ranks the engine runs; each device computes once, to be sure."""
    gpus = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "environment": describe_environment(torch.__version__, "cuda" if gpus else "cpu", torch.get_num_threads()),
        "cpu": {"memory_mib": memory >> 20, "computes": _computes("cpu"), "packed_linear": _has_packed_linear()},
        "gpus": gpus,
    }


def _describe_gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "index": index,
        "name": properties.name,
        "memory_mib": properties.total_memory >> 20,
        "computes": _computes(f"cuda:{index}"),
    }


def _computes(device: str) -> bool:
    ones = torch.ones(8, 8, device=device)
    return bool((ones @ ones == 8).all())


def _has_packed_linear() -> bool:
    from treespec.ops.linear import PackedStorage, best_storage

    weight = torch.ones(512, 512)
    return isinstance(best_storage(weight), PackedStorage)
