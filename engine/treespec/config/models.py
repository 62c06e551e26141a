"""Which model stands in a role, and what is made of it when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from treespec.config.quantisation import Quantisation
from treespec.config.strict import StrictModel

HUB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Inflation(StrictModel):
    """A function-preserving enlargement of a checkpoint: it computes the same and costs more."""

    width_factor: Literal[1, 4, 16] = Field(
        1, description="hidden size, heads and FFN size grow by this; powers of four keep the norm factor exact"
    )
    num_layers: int | None = Field(None, ge=1, description="layers after inflation; null keeps the checkpoint's")


class ModelRef(StrictModel):
    """A model in a role: a folder in the Hugging Face layout, possibly inflated in memory."""

    path: Path = Field(description="folder with config.json, safetensors weights and a tokenizer")
    label: str = Field("", description="how records and figures name it; empty: the folder's name")
    hub_id: str | None = Field(
        None, pattern=HUB_ID_PATTERN, description="organisation/name to get it by, should the folder be absent"
    )
    inflation: Inflation | None = None
    quantisation: Quantisation | None = Field(
        None, description="rounds the layers' linear maps when loading; null: the weights as they are stored"
    )

    @property
    def name(self) -> str:
        """The label, or the folder's name."""
        return self.label or self.path.name
