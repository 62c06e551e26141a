"""Weights in files: *.bin and *.safetensors read tensor by tensor, *.safetensors written the same way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from treespec.config.weights import refuse_pointer
from treespec.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 8  # of the data, by spaces behind the header
PIECE_NUMEL = 1 << 20


@dataclass(frozen=True)
class TensorLayout:
    """A tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Stored."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class WeightFile:
    """An open file of weights; a tensor is read when it is asked for."""

    layouts: dict[str, TensorLayout]
    read: Callable[[str], Tensor]


@contextmanager
def opened(path: Path) -> Iterator[WeightFile]:
    """Raises CheckpointError for a file that is not what its name says."""
    refuse_pointer(path)
    if path.suffix == ".bin":
        yield _opened_bin(path)
        return
    try:
        with safe_open(path, framework="pt") as file:
            layouts = {name: _stored_layout(file.get_slice(name), path, name) for name in file.keys()}  # noqa: SIM118
            yield WeightFile(layouts, file.get_tensor)
    except SafetensorError as error:
        raise CheckpointError("weight file is damaged", where=str(path), received=str(error)) from error


def _opened_bin(path: Path) -> WeightFile:
    """Mapped, so that no more than the tensor in hand has to be in memory; the old format can only be read whole."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "weight file holds more than tensors and is not opened: it could run any program",
            where=str(path),
            fix="take the model in safetensors, from whoever made it",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError("weight file is damaged", where=str(path), received=str(error)) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("weight file holds no plain table of tensors", where=str(path))
    layouts = {name: TensorLayout(tuple(value.shape), value.dtype) for name, value in state.items()}
    if unknown := sorted({str(layout.dtype) for layout in layouts.values() if layout.dtype not in NAMES}):
        raise CheckpointError("weights of an unknown kind", where=str(path), received=unknown, allowed=sorted(DTYPES))
    return WeightFile(layouts, lambda name: state[name])


def _stored_layout(part: object, path: Path, name: str) -> TensorLayout:
    dtype = part.get_dtype()  # type: ignore[attr-defined]  # the library has no types
    if dtype not in DTYPES:
        raise CheckpointError(
            f"tensor {name!r} is of an unknown kind", where=str(path), received=dtype, allowed=sorted(DTYPES)
        )
    return TensorLayout(tuple(part.get_shape()), DTYPES[dtype])  # type: ignore[attr-defined]


def pieces_of(file: WeightFile, name: str) -> Sequence[Tensor]:
    """A tensor's values in order, in pieces: what is worked on at once is bounded, however large the tensor is."""
    pieces: Sequence[Tensor] = file.read(name).reshape(-1).split(PIECE_NUMEL)
    return pieces


def write_safetensors(path: Path, layouts: dict[str, TensorLayout], pieces: Callable[[str], Iterable[Tensor]]) -> str:
    """Write each tensor's values, which come in order, and return the file's sha256. Raises OSError.

    The library's own function wants all of a file's tensors in memory; this one holds a piece of one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    digest = hashlib.sha256()
    try:
        with open(temporary, "wb") as file:
            header = _header(layouts)
            digest.update(header)
            file.write(header)
            for name in layouts:
                for piece in pieces(name):
                    content = piece.contiguous().reshape(-1).view(torch.uint8).numpy().data
                    digest.update(content)
                    file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def _header(layouts: dict[str, TensorLayout]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, layout in layouts.items():
        offsets = [end, end + layout.num_bytes]
        entries[name] = {"dtype": NAMES[layout.dtype], "shape": list(layout.shape), "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
