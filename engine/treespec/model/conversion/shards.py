"""Safetensors files written tensor by tensor: 8 bytes of header length, a JSON header, the data without gaps."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from treespec.errors import OutputError
from treespec.model.checkpoint import DTYPES

ALIGNMENT = 8  # bytes; the data begins at a multiple of it
READ_BYTES = 1 << 22


@dataclass(frozen=True)
class TensorPlan:
    """A tensor that is to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Shard:
    """One file: which bytes of it belong to which tensor."""

    file_name: str
    header: bytes
    ranges: dict[str, tuple[int, int]]  # of the file, in its order

    @property
    def num_bytes(self) -> int:
        """Of the whole file."""
        return max((end for _, end in self.ranges.values()), default=len(self.header))


def plan_shards(units: Sequence[Sequence[TensorPlan]], max_bytes: int) -> list[Shard]:
    """Divide tensors over files of at most ``max_bytes`` of data; a unit stays together, be it larger."""
    groups: list[list[TensorPlan]] = [[]]
    filled = 0
    for unit in units:
        num_bytes = sum(plan.num_bytes for plan in unit)
        if groups[-1] and filled + num_bytes > max_bytes:
            groups.append([])
            filled = 0
        groups[-1] += unit
        filled += num_bytes
    if len(groups) == 1:
        return [_shard("model.safetensors", groups[0])]
    names = (f"model-{index:05}-of-{len(groups):05}.safetensors" for index in range(1, len(groups) + 1))
    return [_shard(name, group) for name, group in zip(names, groups, strict=True)]


def _shard(file_name: str, plans: Sequence[TensorPlan]) -> Shard:
    names = {dtype: name for name, dtype in DTYPES.items()}
    entries, offset, offsets = {}, 0, {}
    # Wide types first: a type of two bytes behind an odd number of single ones could not be mapped.
    for plan in sorted(plans, key=lambda plan: -plan.dtype.itemsize):
        offsets[plan.name] = (offset, offset + plan.num_bytes)
        entries[plan.name] = {"dtype": names[plan.dtype], "shape": plan.shape, "data_offsets": offsets[plan.name]}
        offset += plan.num_bytes
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    header = struct.pack("<Q", len(text)) + text
    return Shard(file_name, header, {name: (len(header) + a, len(header) + b) for name, (a, b) in offsets.items()})


def index_of(shards: Sequence[Shard]) -> dict[str, object]:
    """What model.safetensors.index.json says of several files."""
    total = sum(shard.num_bytes - len(shard.header) for shard in shards)
    weight_map = {name: shard.file_name for shard in shards for name in shard.ranges}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def write_shard(folder: Path, shard: Shard, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Write one file in any order of its tensors; sha256 of the header ("") and of each tensor. Raises OSError."""
    digests = {"": hashlib.sha256(shard.header).hexdigest()}
    with open(folder / shard.file_name, "wb") as file:
        file.write(shard.header)
        for name, tensor in tensors:
            start, end = shard.ranges[name]
            data = tensor.contiguous().flatten().view(torch.uint8).numpy().data
            assert len(data) == end - start, f"{name}: {len(data)} bytes where {end - start} were planned"
            file.seek(start)
            file.write(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        assert digests.keys() == {"", *shard.ranges}
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # what is verified comes from the disk
    return digests


def verify_shard(folder: Path, shard: Shard, digests: dict[str, str]) -> str:
    """Read a file back, every tensor compared; sha256 of the file. Raises OSError, OutputError."""
    path, whole = folder / shard.file_name, hashlib.sha256()
    with open(path, "rb") as file:
        for name, (start, end) in ({"": (0, len(shard.header))} | shard.ranges).items():
            part, left = hashlib.sha256(), end - start
            while left and (data := file.read(min(left, READ_BYTES))):
                part.update(data)
                whole.update(data)
                left -= len(data)
            if part.hexdigest() != digests[name]:
                raise OutputError(
                    f"{f'tensor {name!r}' if name else 'the header'} is not what was written",
                    where=str(path),
                    fix="check the disk and run the same command again",
                )
    return whole.hexdigest()
