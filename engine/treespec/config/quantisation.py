"""How the weights of a model are rounded, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from treespec.config.strict import StrictModel


class Quantisation(StrictModel):
    """Weight-only, group-wise, asymmetric (FlexGen, Sheng et al. 2023, section 5): the scheme of the artifact."""

    bits: Literal[8, 4]
    group_size: int = Field(64, ge=2, description="consecutive inputs of a row that share a scale and a minimum")

    @property
    def label(self) -> str:
        """As records and figures name it."""
        return f"int{self.bits}"
