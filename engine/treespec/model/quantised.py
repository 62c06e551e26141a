"""Quantised weights of a checkpoint: stored as such, or rounded while they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd, prod
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from treespec.config import Quantisation
from treespec.errors import CheckpointError, ConfigError
from treespec.model.sources import Sliceable, TensorSource, Weights
from treespec.model.units import ALL, Rectangle
from treespec.ops.quantised import QuantisedParts, expand, part_shapes, quantise, require_groups

QUANT_METHOD = "treespec"
ELEMENTS_AT_ONCE = 1 << 24  # of the dense weight, while it is rounded


@dataclass(frozen=True)
class QuantisedWeight:
    """A linear map's weight ``[out, in]`` in three parts; indexing it expands that part of it, float32."""

    name: str
    shape: tuple[int, int]
    quantisation: Quantisation
    codes: Sliceable
    scales: Sliceable
    minima: Sliceable

    @property
    def dtype(self) -> torch.dtype:
        """What it expands to."""
        return torch.float32

    def numel(self) -> int:
        """Elements of the dense weight."""
        return prod(self.shape)

    def rectangles(self, rows: slice = ALL, columns: slice = ALL) -> tuple[Rectangle, Rectangle, Rectangle]:
        """Where the three parts of some rows and columns lie. Raises ConfigError for columns that cut a group."""
        size, inputs = self.quantisation.group_size, range(self.shape[1])[columns]
        if inputs.step != 1 or inputs.start % size or inputs.stop % size:
            raise ConfigError(
                "columns of a quantised weight are cut inside a group",
                where=f"tensor {self.name!r}",
                received=f"inputs {inputs.start} to {inputs.stop}, group_size {size}",
                allowed="shares of the inputs that are multiples of group_size",
                fix="choose a smaller group_size or another tensor_parallel_degree",
            )
        groups = slice(inputs.start // size, inputs.stop // size)
        bits = self.quantisation.bits
        codes = slice(inputs.start * bits // 8, inputs.stop * bits // 8)
        return (
            Rectangle(self.codes, rows, codes),
            Rectangle(self.scales, rows, groups),
            Rectangle(self.minima, rows, groups),
        )

    def parts(self, rows: slice = ALL, columns: slice = ALL) -> QuantisedParts:
        """The three tensors of some rows and columns, not expanded."""
        return QuantisedParts(*(rectangle.read() for rectangle in self.rectangles(rows, columns)))

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Tensor:
        rows, columns = (*part, ALL)[:2] if isinstance(part, tuple) else (part, ALL)
        return expand(self.parts(rows, columns), self.quantisation, self.dtype)


@dataclass(frozen=True)
class _Rounded:
    """The parts of a dense weight; it is read and rounded when the first of them is asked for, then kept."""

    name: str
    dense: Sliceable
    quantisation: Quantisation

    @cached_property
    def parts(self) -> QuantisedParts:
        num_rows, num_inputs = self.dense.shape
        step = max(1, ELEMENTS_AT_ONCE // num_inputs)
        blocks = [
            quantise(self.dense[start : start + step], self.quantisation, self.name)
            for start in range(0, num_rows, step)
        ]
        return QuantisedParts(*(torch.cat(tensors) for tensors in zip(*blocks, strict=True)))


@dataclass(frozen=True)
class _RoundedPart:
    """One of the three."""

    whole: _Rounded
    part: str
    shape: tuple[int, int]
    dtype: torch.dtype

    def numel(self) -> int:
        return prod(self.shape)

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Tensor:
        tensor: Tensor = getattr(self.whole.parts, self.part)
        return tensor[part]


class _QuantisedAtLoad(Mapping[str, Sliceable]):
    """Weights of which some are rounded anew whenever they are taken, so that no more than one is held here."""

    def __init__(self, weights: Weights, quantisation: Quantisation) -> None:
        self._weights = weights
        self._quantisation = quantisation
        self._names = quantised_names(weights)
        # A size that divides them all, so that what an error allows can be chosen.
        common = gcd(*(weights[name].shape[1] for name in self._names))
        for name in sorted(self._names):
            require_groups(weights[name].shape[1], quantisation, name, common)

    def __getitem__(self, name: str) -> Sliceable:
        weight = self._weights[name]
        if name not in self._names:
            return weight
        rounded = _Rounded(name, weight, self._quantisation)
        num_rows, num_inputs = weight.shape
        shapes = part_shapes((num_rows, num_inputs), self._quantisation)
        parts = {part: _RoundedPart(rounded, part, shape, dtype) for part, (dtype, shape) in shapes.items()}
        return QuantisedWeight(name, (num_rows, num_inputs), self._quantisation, **parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def quantised_at_load(weights: Weights, quantisation: Quantisation) -> Weights:
    """The same weights, the layers' linear maps rounded. Raises ConfigError for a group_size that does not fit."""
    return _QuantisedAtLoad(weights, quantisation)


def is_quantised(name: str, shape: tuple[int, ...]) -> bool:
    """Whether quantising a model rounds this tensor: linear maps of layers, but no table, norm, bias or head."""
    return len(shape) == 2 and ".layers." in name and name.endswith(".weight")


def quantised_names(weights: Weights) -> frozenset[str]:
    """The tensors that quantising a model rounds."""
    return frozenset(name for name, weight in weights.items() if is_quantised(name, weight.shape))


@dataclass(frozen=True)
class QuantisedSource:
    """A quantised checkpoint, of which a family's reader takes weights by the names they have elsewhere."""

    checkpoint: TensorSource
    quantisation: Quantisation

    def take(self, name: str, shape: tuple[int, ...]) -> Sliceable:
        """Raises CheckpointError, ConfigError."""
        if not is_quantised(name, shape):
            return self.checkpoint.take(name, shape)
        num_rows, num_inputs = shape
        return take_quantised(self.checkpoint, name, (num_rows, num_inputs), self.quantisation)

    def ignore(self, name: str) -> None:
        self.checkpoint.ignore(name)

    def __contains__(self, name: str) -> bool:
        return name in self.checkpoint


def take_quantised(
    checkpoint: TensorSource, name: str, shape: tuple[int, int], quantisation: Quantisation
) -> QuantisedWeight:
    """A weight of a quantised checkpoint. Raises CheckpointError for parts that are missing or of another shape."""
    require_groups(shape[1], quantisation, name)
    taken = {}
    for part, (dtype, part_shape) in part_shapes(shape, quantisation).items():
        tensor = checkpoint.take(f"{name}.{part}", part_shape)
        if tensor.dtype is not dtype:
            raise CheckpointError(
                "a part of a quantised weight has another type",
                where=f"tensor {name}.{part}",
                received=str(tensor.dtype).removeprefix("torch."),
                allowed=str(dtype).removeprefix("torch."),
            )
        taken[part] = tensor
    return QuantisedWeight(name, shape, quantisation, **taken)


def quantisation_of(config: Mapping[str, Any], folder: Path) -> Quantisation | None:
    """How a checkpoint's weights are quantised, by its config.json. Raises CheckpointError for other methods."""
    said = config.get("quantization_config")
    if said is None:
        return None
    where = str(folder / "config.json")
    method = said.get("quant_method") if isinstance(said, Mapping) else said
    if method != QUANT_METHOD:
        raise CheckpointError(
            "the checkpoint is quantised by a method that this engine does not read",
            where=where,
            received=f"quant_method {method!r}",
            allowed=f"{QUANT_METHOD!r}, or no quantization_config",
            fix="take the unquantised checkpoint and quantise it with treespec convert",
        )
    try:
        return Quantisation.model_validate({key: value for key, value in said.items() if key != "quant_method"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        received = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CheckpointError("quantization_config is damaged", where=where, received=received) from error


def quantisation_config(quantisation: Quantisation) -> dict[str, Any]:
    """What ``quantisation_of`` reads."""
    return {"quant_method": QUANT_METHOD, **quantisation.model_dump()}
