"""A checkpoint without files: tensors are made when they are read."""

from __future__ import annotations

from pathlib import Path

import torch

from treespec.errors import CheckpointError
from treespec.model.checkpoint import Checkpoint
from treespec.model.offload.keeper import Keeper
from treespec.model.spec import architecture_of, read_config
from treespec.model.synthetic.card import CARD_FILE, SyntheticCard, read_card
from treespec.model.synthetic.recipes import Recipes
from treespec.model.synthetic.shapes import ModelShape
from treespec.model.synthetic.sharing import SharingKeeper, stored_name
from treespec.model.synthetic.tensors import SyntheticTensor


class SyntheticCheckpoint:
    """Has the interface of Checkpoint; a rank that reads its part makes no more than that."""

    def __init__(self, folder: Path, recipes: Recipes) -> None:
        self.folder = folder
        self.recipes = recipes
        self._tensors = {
            name: SyntheticTensor(name, shape, recipes.dtype, recipe) for name, (shape, recipe) in recipes.all().items()
        }

    @classmethod
    def of(cls, folder: Path, shape: ModelShape, card: SyntheticCard) -> SyntheticCheckpoint:
        """The model that a card describes."""
        dtype = getattr(torch, card.dtype)
        assert isinstance(dtype, torch.dtype)
        return cls(folder, Recipes(shape, card.core_sizes, card.knobs, card.seed, dtype, card.share_layers))

    @property
    def tensors(self) -> dict[str, SyntheticTensor]:
        """All tensors by name, in the order of their use."""
        return dict(self._tensors)

    def take(self, name: str, shape: tuple[int, ...]) -> SyntheticTensor:
        """One tensor, not made yet. Raises CheckpointError if config.json and the card do not fit."""
        if name not in self._tensors:
            raise CheckpointError(f"synthetic checkpoint has no tensor {name!r}", where=str(self.folder))
        tensor = self._tensors[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor {name!r} does not fit config.json",
                where=str(self.folder / CARD_FILE),
                received=f"shape {tensor.shape}",
                allowed=f"shape {shape}",
            )
        return tensor

    def finish(self, ignored_suffixes: tuple[str, ...] = ()) -> None:
        """Nothing can be there that nobody asked for: the tensors follow from config.json."""

    def num_elements(self) -> int:
        """Elements of all tensors, those of layers that repeat others counted once."""
        distinct = {stored_name(name, self.recipes): tensor for name, tensor in self._tensors.items()}
        return sum(tensor.numel() for tensor in distinct.values())

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def ignore(self, name: str) -> None:
        """Nothing is stored twice."""


def open_checkpoint(folder: Path) -> Checkpoint | SyntheticCheckpoint:
    """The weights of a model folder: its files, or what its card says where it has none. Raises CheckpointError."""
    card = read_card(folder)
    if card is None or any(folder.glob("*.safetensors*")):
        return Checkpoint(folder)
    return SyntheticCheckpoint.of(folder, shape_of(folder), card)


def shape_of(folder: Path) -> ModelShape:
    """Sizes of a synthetic model, from its config.json. Raises CheckpointError."""
    config = read_config(folder)
    is_llama = architecture_of(config, folder) == "LlamaForCausalLM"
    ffn, kv_heads = ("intermediate_size", "num_key_value_heads") if is_llama else ("ffn_dim", "num_attention_heads")
    keys = ("vocab_size", "hidden_size", ffn, "num_hidden_layers", "num_attention_heads", kv_heads)
    try:
        sizes = [int(config[key]) for key in (*keys, "max_position_embeddings")]
    except (KeyError, TypeError, ValueError) as error:
        where = str(folder / "config.json")
        raise CheckpointError("not the config.json of a synthetic model", where=where, received=error) from error
    return ModelShape("llama" if is_llama else "opt", *sizes)


def sharing(checkpoint: Checkpoint | SyntheticCheckpoint, keeper: Keeper) -> Keeper:
    """The keeper, made to hold layers that repeat others once."""
    if isinstance(checkpoint, SyntheticCheckpoint) and checkpoint.recipes.share_layers is not None:
        return SharingKeeper(keeper, checkpoint.recipes)
    return keeper
