"""A model folder made from another: inflated, quantised, in another dtype; tensor by tensor, verified, whole or absent.

The model is never in memory as a whole, but for inflation, which makes all tensors at once: it is for small models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from treespec.config import Inflation, Quantisation, StrictModel, hash_model
from treespec.errors import CheckpointError, ConfigError
from treespec.log import say
from treespec.model.checkpoint import Checkpoint
from treespec.model.conversion.config import converted_config, dtype_of
from treespec.model.conversion.folder import Identity, NewFolder, is_finished, new_folder, require_space
from treespec.model.conversion.shards import Shard, TensorPlan, index_of, plan_shards, verify_shard, write_shard
from treespec.model.families.registry import FAMILIES, Family
from treespec.model.quantised import QuantisedWeight, quantisation_of, quantised_at_load
from treespec.model.sources import Weights
from treespec.model.spec import ModelSpec, architecture_of, read_config
from treespec.ops.quantised import PART_NAMES, part_shapes

MIB = 1 << 20
COPIED_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json", "LICENSE", "LICENSE.txt"),
    "synthetic.json",
)


class ConversionSettings(StrictModel):
    """What is to be changed."""

    inflation: Inflation | None = None
    quantisation: Quantisation | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="of what is not quantised; null: the source's, float32 where it is inflated"
    )
    max_shard_mib: int = Field(4096, ge=1, description="tensor data of one file; a larger tensor has one of its own")


def convert(source: Path, settings: ConversionSettings, output: Path) -> Path:
    """Make the folder ``output``, or find it made already by the same conversion. Raises TreespecError."""
    identity = Identity(hash_model(source), settings.model_dump(mode="json"))
    if is_finished(output, identity):
        say(f"{output} is this conversion already, every file as it was written")
        return output
    conversion = _Conversion.plan(source, settings)
    require_space(output, conversion.num_bytes)
    with new_folder(output, identity) as folder:
        if folder is not None:
            conversion.write(folder)
    return output


@dataclass(frozen=True)
class _Names:
    """A source of tensors that have names and shapes only."""

    names: frozenset[str]

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """A place for it."""
        return torch.empty(shape, device="meta")

    def ignore(self, name: str) -> None:
        """It is not there."""

    def __contains__(self, name: str) -> bool:
        return name in self.names


@dataclass(frozen=True)
class _Conversion:
    """Everything that can be known, and refused, before anything is written."""

    source: Path
    config: dict[str, Any]
    family: Family
    spec: ModelSpec
    weights: Weights
    dtype: torch.dtype
    shards: list[Shard]

    @classmethod
    def plan(cls, source: Path, settings: ConversionSettings) -> _Conversion:
        config = read_config(source)
        if quantisation_of(config, source) is not None:
            raise CheckpointError(
                "the model is quantised already",
                where=str(source),
                allowed="a model in floating point",
                fix="convert the model that it was made from",
            )
        family = FAMILIES.get(architecture_of(config, source), where=str(source / "config.json"))
        checkpoint, spec = Checkpoint(source), family.spec(config, source)
        weights: Weights = family.read_weights(spec, checkpoint)
        checkpoint.finish()
        if settings.inflation is not None:
            spec, larger = family.inflate(spec, weights, settings.inflation)
            # In the order of their use, in which streaming reads a file forwards.
            weights = {name: larger[name] for name in family.read_weights(spec, _Names(frozenset(larger)))}
            assert weights.keys() == larger.keys()
        if settings.quantisation is not None:
            weights = quantised_at_load(weights, settings.quantisation)
        dtype = _dtype(settings, config, source)
        config = converted_config(
            config, spec, dtype, settings.quantisation, is_inflated=settings.inflation is not None
        )
        units = [_plans(name, weights, dtype) for name in weights]
        return cls(source, config, family, spec, weights, dtype, plan_shards(units, settings.max_shard_mib * MIB))

    @property
    def num_bytes(self) -> int:
        """Of everything but a few small files."""
        copied = sum((self.source / name).stat().st_size for name in self._copied())
        return sum(shard.num_bytes for shard in self.shards) + copied

    def write(self, folder: NewFolder) -> None:
        """Every file, verified. Raises OSError, TreespecError."""
        for name in self._copied():
            folder.write(name, (self.source / name).read_bytes())
        folder.write("config.json", _json(self.config))
        assert self.family.spec(self.config, folder.path) == self.spec, "config.json does not say what was converted"
        if len(self.shards) > 1:
            folder.write("model.safetensors.index.json", _json(index_of(self.shards)))
        for shard in self.shards:
            written = write_shard(folder.path, shard, self._tensors(shard))
            folder.digests[shard.file_name] = verify_shard(folder.path, shard, written)
            say(f"{shard.file_name}: {len(shard.ranges)} tensors, {shard.num_bytes / MIB:.1f} MiB written and verified")

    def _copied(self) -> list[str]:
        return [name for name in COPIED_FILES if (self.source / name).is_file()]

    def _tensors(self, shard: Shard) -> Iterator[tuple[str, Tensor]]:
        for name in self.weights:
            if _plans(name, self.weights, self.dtype)[0].name not in shard.ranges:
                continue
            weight = self.weights[name]
            if isinstance(weight, QuantisedWeight):
                for part, tensor in zip(PART_NAMES, weight.parts(), strict=True):
                    yield f"{name}.{part}", tensor
            else:
                yield name, _cast(name, weight[:], self.dtype)


def _dtype(settings: ConversionSettings, config: dict[str, Any], source: Path) -> torch.dtype:
    allowed = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    stored = dtype_of(config) or "float32"
    if settings.dtype is None and settings.inflation is None and stored not in allowed:
        raise CheckpointError(
            "model configuration names an unknown dtype",
            where=str(source / "config.json"),
            received=stored,
            allowed=", ".join(allowed),
        )
    return allowed[settings.dtype or ("float32" if settings.inflation is not None else stored)]


def _plans(name: str, weights: Weights, dtype: torch.dtype) -> list[TensorPlan]:
    weight = weights[name]
    if not isinstance(weight, QuantisedWeight):
        return [TensorPlan(name, dtype, tuple(weight.shape))]
    shapes = part_shapes(weight.shape, weight.quantisation)
    return [TensorPlan(f"{name}.{part}", part_dtype, shape) for part, (part_dtype, shape) in shapes.items()]


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(dtype)
    if not bool(cast.isfinite().all()):
        raise ConfigError(
            "a weight is too large for the dtype asked for",
            where=f"tensor {name!r}",
            received=f"largest magnitude {float(tensor.abs().max()):g}",
            allowed=f"at most {torch.finfo(dtype).max:g}",
            fix="choose bfloat16 or float32",
        )
    return cast


def _json(data: object) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
