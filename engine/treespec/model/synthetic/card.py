"""``synthetic.json``: what decides the weights of a synthetic model, and marks it as one; torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from treespec.config.strict import StrictModel
from treespec.errors import CheckpointError
from treespec.model.synthetic.shapes import Core

CARD_FILE = "synthetic.json"
MARK = "synthetic weights"


class Knobs(StrictModel):
    """What decides how often the draft finds the target's token."""

    noise: float = Field(ge=0, description="what the later layers add, in units of what the draft computes")
    miss_share: float = Field(0.0, ge=0, lt=1, description="share of tokens at which they drown it")
    branching: int = Field(8, ge=2, le=256, description="tokens that are plausible after a given one")
    sharpness: float = Field(3.0, gt=0, description="spread of the plausible tokens' logits")


class CoreSizes(StrictModel):
    """Sizes of the draft."""

    hidden_size: int
    ffn_size: int
    num_layers: int


class SyntheticCard(StrictModel):
    """Everything the weights are a function of, config.json besides."""

    version: Literal[1] = Field(1, description="of the recipes: raised when the same card would make other weights")
    title: str = Field(description="how records and figures name the shape")
    role: Literal["target", "draft"]
    seed: int = Field(ge=0)
    dtype: Literal["float16", "bfloat16", "float32"]
    core: CoreSizes
    knobs: Knobs
    share_layers: int | None = Field(None, ge=1, description="distinct layers behind the draft's; null: all")

    @property
    def core_sizes(self) -> Core:
        """Sizes of the draft."""
        return Core(**self.core.model_dump())


def read_card(folder: Path) -> SyntheticCard | None:
    """The card of a model folder, None where there is none. Raises CheckpointError if it is damaged."""
    path = folder / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError("card of a synthetic model cannot be read", where=str(path), received=error) from error
    try:
        return SyntheticCard.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError("card of a synthetic model is damaged", where=str(path), received=error) from error


def synthetic_label(folder: Path) -> str | None:
    """How records and captions must call a model with such weights; None for any other model."""
    card = read_card(folder)
    if card is None:
        return None
    return f"{'draft of the ' if card.role == 'draft' else ''}{card.title} shape, {MARK}"
