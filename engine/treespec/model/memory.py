"""Whether a model and its cache fit the memory there is, asked before anything large is read."""

from __future__ import annotations

import psutil
import torch

from treespec.config import ModelRef
from treespec.errors import CapacityError
from treespec.model.spec import ModelSpec

MIB = 1 << 20


def free_bytes(device: torch.device) -> int:
    """Memory of a device that can still be taken."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def require_room(
    num_elements: int,
    ref: ModelRef,
    spec: ModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    num_ranks: int = 1,
) -> None:
    """Refuse weights of which a rank's share alone exceeds the free memory. Raises CapacityError."""
    needed = int(num_elements * _growth(ref, spec)) * dtype.itemsize // num_ranks
    free = free_bytes(device)
    if needed > free:
        raise CapacityError(
            "the model is larger than the free memory",
            where=str(ref.path),
            received=f"{needed // MIB} MiB of weights in {str(dtype).removeprefix('torch.')}",
            allowed=f"{free // MIB} MiB free on {device}",
            fix="choose a smaller model, a 16-bit dtype or a machine with more memory",
        )


def _growth(ref: ModelRef, spec: ModelSpec) -> float:
    """How much inflation multiplies the matrices by; the tables grow less, so this is an upper bound."""
    if ref.inflation is None:
        return 1.0
    return ref.inflation.width_factor**2 * (ref.inflation.num_layers or spec.num_layers) / spec.num_layers
