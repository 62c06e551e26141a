"""From a model reference to a decoder on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from treespec.config import ModelRef, Quantisation
from treespec.errors import ConfigError
from treespec.model.absent import AbsentDecoder
from treespec.model.checkpoint import Checkpoint
from treespec.model.decoder import Decoder
from treespec.model.families.registry import FAMILIES, Family
from treespec.model.memory import require_room
from treespec.model.offload.keeper import Offloader, Resident
from treespec.model.quantised import QuantisedSource, quantisation_of, quantised_at_load
from treespec.model.sources import Weights
from treespec.model.spec import ModelSpec, architecture_of, read_config
from treespec.model.synthetic.card import synthetic_label
from treespec.model.synthetic.checkpoint import SyntheticCheckpoint, open_checkpoint, sharing
from treespec.model.tokenizers.text import TextTokenizer
from treespec.parallel.collectives import Collectives
from treespec.parallel.mesh import ParallelMesh


@dataclass(frozen=True)
class LoadedModel:
    """A decoder with its tokenizer and the words that records describe it with."""

    decoder: Decoder
    tokenizer: TextTokenizer
    label: str
    description: str
    num_parameters: int  # a tied table counted once
    folder: Path | None = None  # that its weights were read from
    offloader: Offloader | None = None  # of a model that does not stay on the device as a whole


@dataclass(frozen=True)
class OpenedModel:
    """A model folder whose configuration and tokenizer were read, and no weight."""

    ref: ModelRef
    family: Family
    spec: ModelSpec
    tokenizer: TextTokenizer
    quantisation: Quantisation | None = None  # of the checkpoint
    made_from: ModelRef | None = None  # where this checkpoint is a conversion of another one

    def load(
        self,
        dtype: torch.dtype,
        device: torch.device,
        mesh: ParallelMesh,
        collectives: Collectives | None = None,
        offloader: Offloader | None = None,
    ) -> LoadedModel:
        """Read this rank's weights, inflate where asked, build. Raises TreespecError before anything is computed."""
        checkpoint = open_checkpoint(self.ref.path)
        if offloader is None:
            require_room(checkpoint.num_elements(), self.ref, self.spec, dtype, device, mesh.num_ranks)
        spec, weights = self.weights(checkpoint)
        keeper = sharing(checkpoint, offloader or Resident(dtype, device))
        decoder = self.family.decoder(spec, weights, dtype, device, mesh, collectives, keeper)
        return replace(self._loaded(decoder, weights), folder=self.ref.path, offloader=offloader)

    def describe(self, dtype: torch.dtype, device: torch.device) -> LoadedModel:
        """The model as a rank knows it that leaves the weights to others; they are read only to be inflated."""
        spec, weights = self.weights()
        return self._loaded(AbsentDecoder(spec, dtype, device), weights)

    def weights(self, checkpoint: Checkpoint | SyntheticCheckpoint | None = None) -> tuple[ModelSpec, Weights]:
        """The tensors as they are to be served; read, inflated and rounded as they are taken."""
        checkpoint = checkpoint or open_checkpoint(self.ref.path)
        stored = QuantisedSource(checkpoint, self.quantisation) if self.quantisation is not None else checkpoint
        spec, weights = self.spec, cast(Weights, self.family.read_weights(self.spec, stored))
        checkpoint.finish()
        if self.ref.inflation is not None:
            spec, weights = self.family.inflate(spec, weights, self.ref.inflation)
        if self.ref.quantisation is not None:
            weights = quantised_at_load(weights, self.ref.quantisation)
        return spec, weights

    def _loaded(self, decoder: Decoder, weights: Weights) -> LoadedModel:
        num_parameters = sum(weight.numel() for weight in weights.values())
        description = describe_model(
            self.made_from or self.ref, num_parameters, self.quantisation or self.ref.quantisation
        )
        return LoadedModel(decoder, self.tokenizer, self.ref.name, description, num_parameters)


def read_spec(folder: Path) -> ModelSpec:
    """What a folder's configuration says of the model. Raises TreespecError."""
    config = read_config(folder)
    family = FAMILIES.get(architecture_of(config, folder), where=str(folder / "config.json"))
    return family.spec(config, folder)


def open_model(ref: ModelRef) -> OpenedModel:
    """Read what a folder says of itself. Raises TreespecError."""
    config = read_config(ref.path)
    family = FAMILIES.get(architecture_of(config, ref.path), where=str(ref.path / "config.json"))
    stored = quantisation_of(config, ref.path)
    if stored is not None and ref.quantisation not in (None, stored):
        raise ConfigError(
            "the checkpoint is quantised already",
            where=str(ref.path),
            received=f"quantisation {ref.quantisation}",
            allowed=f"none, or what it has: {stored}",
        )
    if stored is not None:
        ref = ref.model_copy(update={"quantisation": None})
    return OpenedModel(ref, family, family.spec(config, ref.path), TextTokenizer.load(ref.path), stored)


def load_model(ref: ModelRef, dtype: torch.dtype, device: torch.device, mesh: ParallelMesh) -> LoadedModel:
    """Open and load."""
    return open_model(ref).load(dtype, device, mesh)


def describe_model(ref: ModelRef, num_parameters: int, quantisation: Quantisation | None = None) -> str:
    """The words that records and captions use."""
    size = f"{num_parameters / 1e6:.3g}M parameters"
    size = f"inflated to {size}" if ref.inflation is not None else size
    rounded = [quantisation.label] if quantisation is not None else []
    made_up = synthetic_label(ref.path)
    return ", ".join([ref.name, size, *rounded, *([made_up] if made_up else [])])


def require_same_vocabulary(target: OpenedModel, draft: OpenedModel) -> None:
    """Refuse a pair whose token ids mean different texts; tables may be padded differently. Raises ConfigError."""
    ours, theirs = target.tokenizer.vocabulary(), draft.tokenizer.vocabulary()
    if ours == theirs:
        return
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    raise ConfigError(
        "draft and target have different vocabularies",
        where=f"target {target.ref.name!r}, draft {draft.ref.name!r}",
        received=f"{len(ours)} and {len(theirs)} tokens, {len(differing)} tokens differ; "
        f"first difference: {differing[0]!r}",
        allowed="the same token for every id",
        fix="choose a draft model that was trained with the target's tokenizer",
    )
