"""An experiment as types: the grid that a file in config/experiments/ spans, and what a platform may change of it."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, field_validator

from benchmarks.peer_identity import PeerName
from treespec.config import Drafting, Quantisation, Sampling, StrictModel
from treespec.config.run import NAME_PATTERN

ModelSize = Literal["small", "medium", "large"]
BatchComposition = Literal["mixed", "repeated"]
PositiveInt = Annotated[int, Field(ge=1)]
ModeName = Annotated[str, Field(pattern=NAME_PATTERN)]
VariantName = Annotated[str, Field(pattern=NAME_PATTERN)]
RoleName = Annotated[str, Field(pattern=NAME_PATTERN)]
PromptSets = str | Annotated[tuple[str, ...], Field(min_length=1)]
BudgetMinutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AXES = ("size", "batch_size", "mode", "prompts")
"""What a grid is spanned by, as name forms call it."""


class Mode(StrictModel):
    """How requests are decoded: who drafts, how tokens are chosen, and how what was drafted is verified."""

    mode: Literal["incremental", "sequence", "tree"]
    expansion: tuple[PositiveInt, ...] = Field((), description="children per leaf at each draft step")
    drafters: tuple[Drafting, ...] = Field(
        (), description="who drafts; expansion alone is short for one draft model that grows it by top-k"
    )
    verifier: str = Field("auto", description="auto: greedy at temperature 0, else sampler_match")
    sampling: Sampling = Field(Sampling(), description="how tokens are chosen; greedy by default")
    tree_layout: Literal["tree", "sequences"] = Field(
        "tree", description="the target sees a tree as one row with a mask, or every path as a row of its own"
    )


class Variant(StrictModel):
    """What one placement of a model size does with the target's weights."""

    offload: bool = Field(
        default=False, description="stream what does not fit the device memory that the size gives the weights"
    )
    quantisation: Quantisation | None = Field(None, description="round them when loading; null: as they are stored")
    offload_reserve_mib: PositiveInt | None = Field(None, description="null: the size's")


class SizeOverrides(StrictModel):
    """What one model size changes of an experiment; whatever is not named keeps its value."""

    modes: dict[ModeName, Mode | None] | None = Field(
        None, description="replaces the modes named, leaves out those that are null, keeps the others"
    )
    variants: dict[VariantName, Variant | None] | None = Field(
        None, description="replaces the variants named, leaves out those that are null, keeps the others"
    )
    batch_sizes: tuple[PositiveInt, ...] | None = None
    peers: tuple[PeerName, ...] | None = None
    num_prompts: PositiveInt | None = None
    num_repeats: PositiveInt | None = None
    max_new_tokens: PositiveInt | None = None


class Overrides(SizeOverrides):
    """What a platform changes of an experiment; what a size changes stands above it."""

    sizes: tuple[ModelSize, ...] | None = Field(None, description="none of them: the experiment is left out here")
    roles: dict[ModelSize, RoleName] | None = Field(None, description="replaces those of the sizes named")
    prompts: PromptSets | None = None
    batch_composition: BatchComposition | None = None
    ignore_eos: bool | None = None
    max_tokens_per_batch: PositiveInt | None = None
    max_tree_nodes: PositiveInt | None = None


class Sweep(StrictModel):
    """config/experiments/<name>.yaml: a grid of sizes x prompt sets x variants x batch sizes x modes.

    Of what the name form does not tell, the first value is the experiment's own, and the others are named in scenario
    names.
    """

    description: str
    budget_minutes: BudgetMinutes = Field(description="what it may take on the laptop platform")
    prefix: str = Field(pattern=NAME_PATTERN, description="how scenario names and tables of this sweep begin")
    name_form: str = Field(
        description="what follows it and _ in scenario names, of {size}, {batch_size}, {mode}, {prompts}"
    )
    has_size_tables: bool = Field(
        default=False, description="beside its table, one per model size in the columns of the artifact"
    )
    sizes: tuple[ModelSize, ...] = Field(description="none of them: the platform leaves the experiment out")
    roles: dict[ModelSize, RoleName] = Field(
        default_factory=dict, description="which size of a platform's holds the models; default: that of the same name"
    )
    variants: dict[VariantName, Variant] = Field({"resident": Variant()}, min_length=1)
    modes: dict[ModeName, Mode] = Field(min_length=1)
    plugins: tuple[Path, ...] = Field(
        (), description="Python files with drafters and verifiers of one's own, by paths from the repository's root"
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    peers: tuple[PeerName, ...] = Field((), description="third parties that serve the incremental scenarios too")
    prompts: PromptSets = Field(description="prompt sets that the platform names files for: one, or a list")
    num_prompts: PositiveInt | None = Field(description="take the first so many of each set; null: all")
    batch_composition: BatchComposition = Field(
        "mixed", description="repeated: every prompt once per place in the batch, as in the artifact"
    )
    num_repeats: PositiveInt
    max_new_tokens: PositiveInt
    ignore_eos: bool
    max_tokens_per_batch: PositiveInt
    max_tree_nodes: PositiveInt | None = Field(
        None, description="speculative slots per request that its trees need; null: those of the size, or the platform"
    )

    @property
    def prompt_sets(self) -> tuple[str, ...]:
        """The prompt sets of the grid."""
        return (self.prompts,) if isinstance(self.prompts, str) else self.prompts

    @property
    def told_axes(self) -> set[str]:
        """Those of AXES that the name form tells."""
        return _fields_of(self.name_form)

    @field_validator("name_form")
    @classmethod
    def _names_tell_of_the_grid(cls, form: str) -> str:
        if not set() < _fields_of(form) <= {*AXES}:
            raise ValueError(f"allowed: a text with some of {', '.join(f'{{{axis}}}' for axis in AXES)}")
        return form

    @field_validator("variants")
    @classmethod
    def _variants_differ(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name, variant in variants.items():
            if same := [other for other in variants if other != name and variants[other] == variant]:
                raise ValueError(f"variants {name!r} and {same[0]!r} are the same")
        return variants


def _fields_of(form: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(form) if name is not None}
