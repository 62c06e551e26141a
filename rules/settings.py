"""The configuration files as types: what may stand in config/, refused as a whole where it does not fit together."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from benchmarks.peer_identity import PeerName
from rules.launching import LAUNCHERS, Launcher, LauncherName
from treespec.config import Drafting, ModelRef, Quantisation, StrictModel
from treespec.config.run import NAME_PATTERN, describe_validation_error
from treespec.errors import ConfigError

ModelSize = Literal["small", "medium", "large"]
ModeName = Literal["incr_dec", "sequence_specinfer", "tree_specinfer", "tree_auto"]
Purpose = Literal["measure", "functional"]
BatchComposition = Literal["mixed", "repeated"]
PositiveInt = Annotated[int, Field(ge=1)]
EMBEDDED_CLUSTER = "embedded"


class WorkflowConfig(StrictModel):
    """config/config.yaml, with whatever the command line put over it."""

    platform: str = Field(min_length=1, description="a name in config/platforms/, or the path of a platform file")
    results_dir: Path = Field(Path("results"), description="everything measured and drawn goes below it")


class Mode(StrictModel):
    """How one decoding mode drafts."""

    mode: Literal["incremental", "sequence", "tree"]
    expansion: tuple[PositiveInt, ...] = Field((), description="children per leaf at each draft step")
    drafters: tuple[Drafting, ...] = Field(
        (), description="who drafts; expansion alone is short for one draft model that grows it by top-k"
    )


class Variant(StrictModel):
    """What one placement of a model size does with the target's weights."""

    offload: bool = Field(
        default=False, description="stream what does not fit the device memory that the size gives the weights"
    )
    quantisation: Quantisation | None = Field(None, description="round them when loading; null: as they are stored")
    offload_reserve_mib: PositiveInt | None = Field(None, description="null: the size's")


VariantName = Annotated[str, Field(pattern=NAME_PATTERN)]


class SizeOverrides(StrictModel):
    """What one model size changes of an experiment; whatever is not named keeps its value."""

    modes: dict[ModeName, Mode] | None = Field(None, description="replaces the modes named, keeps the others")
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
    prompts: str | None = None
    batch_composition: BatchComposition | None = None
    ignore_eos: bool | None = None
    max_tokens_per_batch: PositiveInt | None = None


RoleName = Annotated[str, Field(pattern=NAME_PATTERN)]


class SizeRoles(StrictModel):
    """The models that stand in the roles of one of the paper's model sizes, and the ranks they run on."""

    target: ModelRef
    drafts: tuple[ModelRef, ...] = Field(min_length=1)
    tensor_parallel_degree: PositiveInt = 1
    pipeline_parallel_degree: PositiveInt = 1
    max_tree_nodes: PositiveInt | None = Field(None, description="null: the platform's")
    offload: Literal["host", "disk"] | None = Field(
        None, description="where weights are streamed from, in experiments that offload"
    )
    offload_reserve_mib: PositiveInt | None = Field(
        None, description="device memory per rank that the target's weights may take there"
    )
    purpose: Purpose = Field(
        "measure", description="functional: shows that it works; its times are the scheduler's and are not drawn"
    )
    overrides: SizeOverrides = Field(SizeOverrides(), description="in every experiment, above the platform's")

    @property
    def num_ranks(self) -> int:
        """Processes that serve the target together."""
        return self.tensor_parallel_degree * self.pipeline_parallel_degree

    @model_validator(mode="after")
    def _offloading_has_a_budget(self) -> Self:
        if (self.offload is None) != (self.offload_reserve_mib is None):
            raise ValueError(
                f"offload {self.offload!r} with offload_reserve_mib {self.offload_reserve_mib}; "
                "allowed: both, or neither"
            )
        return self


class Argument(StrictModel):
    """A value that the command line gives: `--config NAME=VALUE` stands wherever the file says `${NAME}`."""

    description: str
    default: str | int | None = Field(None, description="null: it must be given")
    is_path: bool = Field(default=False, description="it must be there when planning")


class Platform(StrictModel):
    """config/platforms/<name>.yaml: the hardware, and which model and prompt file stands in which role."""

    description: str
    num_nodes: PositiveInt
    devices_per_node: PositiveInt
    ranks_per_node: PositiveInt | None = Field(
        None, description="null: one per device; on CPUs there may be more, which share the cores"
    )
    launch: LauncherName = Field(
        "local", description="local: on this machine; ssh: on the hosts of cluster; srun: inside a Slurm allocation"
    )
    cluster: str | None = Field(
        None,
        min_length=1,
        description=f"for ssh: path of a cluster.yaml, or {EMBEDDED_CLUSTER!r} for two nodes made on this machine",
    )
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    num_threads: PositiveInt | None = Field(description="CPU threads; null: one per core the process may use")
    min_device_memory_mib: PositiveInt | None = Field(None, description="what every device must have; null: unknown")
    cache_fraction: float = Field(gt=0, lt=1, description="share of free device memory for the KV caches")
    max_sequence_length: int = Field(ge=2, description="tokens of prompt and output together, per request")
    max_tree_nodes: PositiveInt = Field(description="speculative slots per request")
    sizes: dict[RoleName, SizeRoles] = Field(
        min_length=1, description="the models of a size of the experiments, by the name that these give it"
    )
    prompts: dict[str, Path] = Field(min_length=1, description="prompt set of the paper -> file that stands for it")
    overrides: dict[str, Overrides] = Field(default_factory=dict, description="by experiment")
    arguments: dict[str, Argument] = Field(default_factory=dict, description="what the command line gives, by name")

    @property
    def launcher(self) -> Launcher:
        """How its jobs start."""
        return LAUNCHERS[self.launch]

    @property
    def ranks_on_a_node(self) -> int:
        """Ranks that fit on one node."""
        return self.ranks_per_node or self.devices_per_node

    @model_validator(mode="after")
    def _ranks_have_their_places(self) -> Self:
        if self.device == "cuda" and self.ranks_on_a_node > self.devices_per_node:
            raise ValueError(
                f"a GPU serves one rank: ranks_per_node is at most devices_per_node {self.devices_per_node}"
            )
        if self.num_nodes > 1 and not self.launcher.is_remote:
            remote = [name for name, launcher in LAUNCHERS.items() if launcher.is_remote]
            raise ValueError(
                f"launch {self.launch} starts ranks on this machine only, received num_nodes {self.num_nodes}; "
                f"for several nodes launch is {' or '.join(remote)}"
            )
        return self

    @model_validator(mode="after")
    def _cluster_belongs_to_the_launcher(self) -> Self:
        if self.launcher.needs_cluster != (self.cluster is not None):
            needed = "needs the path of a cluster.yaml" if self.cluster is None else "takes no cluster"
            raise ValueError(f"launch {self.launch} {needed}, received cluster {self.cluster!r}")
        files = [model.path for roles in self.sizes.values() for model in (roles.target, *roles.drafts)]
        for path in (*files, *self.prompts.values()):
            if self.launcher.needs_cluster and (path.is_absolute() or ".." in path.parts):
                raise ValueError(
                    f"{path} has no place on the hosts; with launch {self.launch}, models and prompts lie below the "
                    "repository's root and are named by their paths from there"
                )
        return self


class BasicTest(StrictModel):
    """config/experiments/basic_test.yaml: which models and prompts the basic test takes."""

    description: str
    size: RoleName
    streamed_size: RoleName = Field(description="of the part with offloading; size, where the platform has none")
    prompts: str


class Sweep(StrictModel):
    """config/experiments/<name>.yaml: model sizes x variants x batch sizes x modes, under common settings.

    The first mode and the first variant are the artifact's own settings; the others are named in scenario names.
    """

    description: str
    prefix: str = Field(pattern=NAME_PATTERN, description="how scenario names and tables of this sweep begin")
    name_form: str = Field(
        description="what follows it and _ in the artifact's names, of {size}, {batch_size} and, where these tell it, "
        "{mode}"
    )
    sizes: tuple[ModelSize, ...] = Field(description="none of them: the platform leaves the experiment out")
    roles: dict[ModelSize, RoleName] = Field(
        default_factory=dict, description="which size of a platform's holds the models; default: that of the same name"
    )
    variants: dict[VariantName, Variant] = Field({"resident": Variant()}, min_length=1)
    modes: dict[ModeName, Mode] = Field(min_length=1)
    batch_sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    peers: tuple[PeerName, ...] = Field((), description="third parties that serve the incremental scenarios too")
    prompts: str = Field(description="a prompt set that the platform names a file for")
    num_prompts: PositiveInt | None = Field(description="take the first so many; null: all")
    batch_composition: BatchComposition = Field(
        "mixed", description="repeated: every prompt once per place in the batch, as in the artifact"
    )
    num_repeats: PositiveInt
    max_new_tokens: PositiveInt
    ignore_eos: bool
    max_tokens_per_batch: PositiveInt

    @field_validator("name_form")
    @classmethod
    def _names_are_told_apart(cls, form: str) -> str:
        fields = [name for _, name, _, _ in Formatter().parse(form) if name is not None]
        if not {"size", "batch_size"} <= {*fields} <= {"size", "batch_size", "mode"}:
            raise ValueError("allowed: a text with {size}, {batch_size} and, at will, {mode}")
        return form

    @field_validator("variants")
    @classmethod
    def _variants_differ(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name, variant in variants.items():
            if same := [other for other in variants if other != name and variants[other] == variant]:
                raise ValueError(f"variants {name!r} and {same[0]!r} are the same")
        return variants


ModelT = TypeVar("ModelT", bound=StrictModel)


def validated(model: type[ModelT], data: object, where: str) -> ModelT:
    """Plain data as a model; ConfigError names the place, what was received and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"configuration refused: {describe_validation_error(error)}", where=where) from error


def overridden(sweep: Sweep, changes: SizeOverrides, where: str) -> Sweep:
    """The sweep with everything that ``changes`` names; ConfigError where it does not fit."""
    published, named = sweep.model_dump(), changes.model_dump(exclude_unset=True)
    for key in ("modes", "variants"):
        if named.get(key):
            merged = published[key] | named[key]
            named[key] = {name: value for name, value in merged.items() if value is not None}
    return validated(Sweep, published | named, where)
