"""Who drafts in a scenario, as data. Several drafters are a portfolio: their trees are merged by root path."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from treespec.config.strict import StrictModel

Expansion = tuple[PositiveInt, ...]


class SsmDrafting(StrictModel):
    """A draft model (the paper's SSM) that grows a tree level by level."""

    kind: Literal["ssm"] = "ssm"
    model: int = Field(0, ge=0, description="which of the placement's drafts")
    tree: Literal["expansion", "best", "dynamic", "auto"] = Field(
        "expansion",
        description="shape: a fixed expansion; the best for num_nodes by measured acceptance; by the draft's own "
        "confidence; or size and shape by acceptance and cost, no speculation included",
    )
    expansion: Expansion = Field((), description="children per leaf at each draft step, for tree: expansion")
    num_nodes: int = Field(16, ge=1, description="largest tree, root not counted, for the other trees")
    max_depth: int = Field(8, ge=1, description="largest depth, for the other trees")
    width: int = Field(4, ge=1, description="nodes expanded per level, for tree: dynamic")
    selection: Literal["top_k", "iid", "without_replacement"] = Field(
        "top_k", description="children are the likeliest tokens, or drawn with or without replacement"
    )

    @model_validator(mode="after")
    def _shape_is_said_once(self) -> Self:
        if bool(self.expansion) != (self.tree == "expansion"):
            raise ValueError(
                f"tree {self.tree!r} with expansion {list(self.expansion)}; allowed: tree 'expansion' with positive "
                "widths, or another tree without an expansion"
            )
        if self.tree == "dynamic" and self.selection != "top_k":
            raise ValueError(
                f"tree 'dynamic' with selection {self.selection!r}; allowed: top_k "
                "(pruning what was drawn is not lossless)"
            )
        return self

    @property
    def max_nodes(self) -> int:
        """Most nodes of a tree, root not counted."""
        return _num_nodes(self.expansion) if self.tree == "expansion" else self.num_nodes

    @property
    def max_path_tokens(self) -> int:
        """Most tokens of all root-to-leaf paths of a tree together, the root counted in each."""
        if self.tree == "expansion":
            return prod(self.expansion) * (1 + len(self.expansion))
        return _most_path_tokens(self.num_nodes, self.max_depth)

    @property
    def draft_models(self) -> tuple[int, ...]:
        """Which of the placement's drafts it runs."""
        return (self.model,)

    @property
    def max_slots(self) -> int:
        """Most speculative cache slots that the draft model itself needs."""
        return self.width * self.max_depth if self.tree == "dynamic" else self.max_nodes

    @property
    def is_chain(self) -> bool:
        """Whether no node can have two children."""
        return self.tree == "expansion" and set(self.expansion) <= {1}


class NgramDrafting(StrictModel):
    """Prompt lookup: what followed the last tokens when they stood earlier in the same request."""

    kind: Literal["ngram"]
    num_tokens: PositiveInt = Field(8, description="tokens proposed per continuation")
    max_ngram: PositiveInt = Field(3, description="longest run of last tokens that is looked up")
    width: PositiveInt = Field(1, description="continuations proposed, most recent first")

    draft_models: ClassVar[tuple[int, ...]] = ()

    @property
    def max_nodes(self) -> int:
        """Most nodes of a tree, root not counted."""
        return self.num_tokens * self.width

    @property
    def max_path_tokens(self) -> int:
        """Most tokens of all root-to-leaf paths of a tree together, the root counted in each."""
        return (1 + self.num_tokens) * self.width

    @property
    def is_chain(self) -> bool:
        """Whether no node can have two children."""
        return self.width == 1


class SuffixDrafting(StrictModel):
    """Suffix decoding (arXiv 2411.04975): continuations counted in this prompt and all earlier outputs."""

    kind: Literal["suffix"]
    num_nodes: PositiveInt = Field(16, description="most nodes of a tree, root not counted")
    max_match: PositiveInt = Field(16, description="longest suffix of the context that is looked up")
    alpha: float = Field(2.0, gt=0, allow_inf_nan=False, description="depth of the tree over the length of the match")

    is_chain: ClassVar[bool] = False
    draft_models: ClassVar[tuple[int, ...]] = ()

    @property
    def max_nodes(self) -> int:
        """Most nodes of a tree, root not counted."""
        return self.num_nodes

    @property
    def max_path_tokens(self) -> int:
        """Most tokens of all root-to-leaf paths of a tree together, the root counted in each."""
        return _most_path_tokens(self.num_nodes, self.num_nodes)


class PluginDrafting(StrictModel):
    """A drafter from one of the placement's plugin files."""

    kind: Literal["plugin"]
    name: str = Field(min_length=1, description="its entry in the file's DRAFTERS")
    models: tuple[int, ...] = Field((), description="which of the placement's drafts it runs")
    max_nodes: PositiveInt = Field(16, description="most nodes of a tree, root not counted")
    options: dict[str, Any] = Field(default_factory=dict, description="handed to it as they are")

    is_chain: ClassVar[bool] = False

    @property
    def max_path_tokens(self) -> int:
        """Most tokens of all root-to-leaf paths of a tree together, the root counted in each."""
        return _most_path_tokens(self.max_nodes, self.max_nodes)

    @property
    def draft_models(self) -> tuple[int, ...]:
        """Which of the placement's drafts it runs."""
        return self.models


Drafting = Annotated[SsmDrafting | NgramDrafting | SuffixDrafting | PluginDrafting, Field(discriminator="kind")]


def _num_nodes(expansion: Expansion) -> int:
    num_nodes, num_leaves = 0, 1
    for width in expansion:
        num_leaves *= width
        num_nodes += num_leaves
    return num_nodes


def _most_path_tokens(num_nodes: int, max_depth: int) -> int:
    """Over all trees of so many nodes below the root: L leaves are at most as deep as what is left of the nodes."""
    return max(num_leaves * (1 + min(max_depth, num_nodes - num_leaves + 1)) for num_leaves in range(1, num_nodes + 1))
