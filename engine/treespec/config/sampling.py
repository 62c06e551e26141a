"""How a request's tokens are chosen from a distribution."""

from __future__ import annotations

from pydantic import Field

from treespec.config.strict import StrictModel


class Sampling(StrictModel):
    """Transformations of the logits, in this order: temperature, top-k, top-p, min-p; then one draw.

    Applied alike to the target and to the drafts, so that a draft is drawn from what it reports.
    """

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="0: the likeliest token (greedy)")
    top_k: int | None = Field(None, ge=1, description="keep the k likeliest tokens; null: all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the likeliest tokens that together reach this mass")
    min_p: float = Field(0.0, ge=0, lt=1, description="drop tokens below this share of the likeliest one's mass")
    seed: int = Field(0, ge=0, lt=1 << 64, description="same seed, request and fixed tree: same text")

    @property
    def is_greedy(self) -> bool:
        """Whether chance plays no part."""
        return self.temperature == 0
