"""Weights of a Hugging Face folder: safetensors, one file or shards with an index."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from treespec.config.weights import missing_weights, refuse_pointer
from treespec.errors import CheckpointError

ALL = slice(None)
READ_BYTES = 4 << 20  # at once: what was just read is still in the processor's cache when it is looked at
LENGTH_BYTES = 8  # of the header's length, with which a file begins
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
"""What a safetensors file may hold of what is read here, by the format's names."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk; indexing it reads that part and nothing else, in the stored dtype."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int  # of its first byte in the file; rows follow one another without gaps

    def numel(self) -> int:
        """Elements of the whole."""
        return math.prod(self.shape)

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Tensor:
        """Raises CheckpointError for a damaged file and for values that are no numbers."""
        rows, columns = (*part, ALL)[:2] if isinstance(part, tuple) else (part, ALL)
        num_rows, width = self.shape[0], math.prod(self.shape[1:])
        first, last, _ = rows.indices(num_rows)
        wanted = range(width)[columns]
        matrix = torch.empty(last - first, len(wanted), dtype=self.dtype)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.offset + first * width * self.dtype.itemsize)
                if len(wanted) == width:
                    self._fill(matrix.view(-1), file)
                else:
                    self._fill_columns(matrix, file, columns, width)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return matrix.view(last - first, *self.shape[1:]) if columns == ALL else matrix

    def _fill(self, numbers: Tensor, file: FileIO) -> None:
        """Read numbers and look at them piece by piece, while the system reads ahead."""
        step = READ_BYTES // self.dtype.itemsize
        for piece in numbers.split(step) if len(numbers) else ():
            buffer = memoryview(piece.view(torch.uint8).numpy().data)
            while len(buffer):
                done = file.readinto(buffer)
                if not done:
                    raise _unreadable(self.path, f"it ends within tensor {self.name!r}")
                buffer = buffer[done:]
            self._require_numbers(piece)

    def _fill_columns(self, matrix: Tensor, file: FileIO, columns: slice, width: int) -> None:
        """Some rows at a time, of which the columns are kept."""
        for block in matrix.split(max(1, READ_BYTES // (width * self.dtype.itemsize))):
            rows = torch.empty(len(block), width, dtype=self.dtype)
            self._fill(rows.view(-1), file)
            block.copy_(rows[:, columns])

    def _require_numbers(self, piece: Tensor) -> None:
        if self.dtype.is_floating_point and not all(bool(end.isfinite()) for end in torch.aminmax(piece)):
            raise CheckpointError(
                f"tensor {self.name!r} holds NaN or infinite values",
                where=str(self.path),
                fix="get the file again and compare its sha256",
            )


class Checkpoint:
    """Tensors by name, read part by part; every name that is never taken is reported by ``finish``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = _tensor_files(folder)
        self._taken: set[str] = set()
        self._known: dict[Path, dict[str, StoredTensor]] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """One tensor, not read yet. Raises CheckpointError if it is missing or of another shape."""
        if name not in self._files:
            raise CheckpointError(f"checkpoint lacks tensor {name!r}", where=str(self.folder))
        self._taken.add(name)
        path = self._files[name]
        stored = self._headers(path).get(name)
        if stored is None:
            raise CheckpointError(f"weight file lacks tensor {name!r}, which the index promises", where=str(path))
        if stored.shape != shape:
            raise CheckpointError(
                f"tensor {name!r} does not fit config.json",
                where=str(path),
                received=f"shape {stored.shape}",
                allowed=f"shape {shape}",
            )
        return stored

    def _headers(self, path: Path) -> dict[str, StoredTensor]:
        if path not in self._known:
            self._known[path] = _header(path)
        return self._known[path]

    def finish(self, ignored_suffixes: tuple[str, ...] = ("rotary_emb.inv_freq",)) -> None:
        """Refuse tensors nobody asked for: the architecture would be another one than config.json says."""
        extra = sorted(n for n in self._files if n not in self._taken and not n.endswith(ignored_suffixes))
        if extra:
            raise CheckpointError(
                "checkpoint holds tensors that this architecture does not have",
                where=str(self.folder),
                received=", ".join(extra[:5]) + (f" and {len(extra) - 5} more" if len(extra) > 5 else ""),
            )

    def num_elements(self) -> int:
        """Elements of all tensors, from the headers alone."""
        headers = [self._headers(path) for path in sorted(set(self._files.values()))]
        return sum(tensor.numel() for header in headers for tensor in header.values())

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def ignore(self, name: str) -> None:
        """Count a tensor as known without reading it (a tied head stored twice)."""
        self._taken.add(name)


def _tensor_files(folder: Path) -> dict[str, Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError("weight index is damaged", where=str(index), received=str(error)) from error
        missing = sorted({file for file in weight_map.values() if not (folder / file).exists()})
        if missing:
            raise CheckpointError("weight files are missing", where=str(folder), received=", ".join(missing))
        return {name: folder / file for name, file in weight_map.items()}
    path = folder / "model.safetensors"
    if not path.exists():
        raise missing_weights(folder)
    return dict.fromkeys(_header(path), path)


def _header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, read without mapping it: it may be larger than the memory."""
    try:
        refuse_pointer(path)
        with open(path, "rb") as file:
            start = file.read(LENGTH_BYTES)
            if len(start) < LENGTH_BYTES:
                raise ValueError(f"a file of {len(start)} bytes" if start else "an empty file")
            length = int.from_bytes(start, "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"header of {length} bytes")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if path.stat().st_size != LENGTH_BYTES + length + end:
            raise ValueError(f"{path.stat().st_size} bytes where the header says {LENGTH_BYTES + length + end}")
        return {name: _stored(name, path, entry, LENGTH_BYTES + length) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _stored(name: str, path: Path, entry: dict[str, Any], start: int) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(
            f"tensor {name!r} is of a type that is not supported",
            where=str(path),
            received=entry["dtype"],
            allowed=", ".join(DTYPES),
            fix="take the model in floating point; treespec convert --quantise rounds it",
        )
    tensor = StoredTensor(name, path, tuple(entry["shape"]), DTYPES[entry["dtype"]], start + entry["data_offsets"][0])
    num_bytes = entry["data_offsets"][1] - entry["data_offsets"][0]
    if tensor.numel() * tensor.dtype.itemsize != num_bytes:
        raise ValueError(f"tensor {name!r} of shape {tensor.shape} in {num_bytes} bytes")
    return tensor


def _unreadable(path: Path, error: object) -> CheckpointError:
    return CheckpointError(
        "weight file is truncated or damaged",
        where=str(path),
        received=str(error),
        fix="get the file again and compare its sha256",
    )
