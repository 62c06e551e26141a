"""The configuration files as types: what may stand in config/, refused as a whole where it does not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from benchmarks.peer_identity import PeerName
from rules.launching import LAUNCHERS, Launcher, LauncherName
from treespec.config import ModelRef, StrictModel
from treespec.config.run import NAME_PATTERN, describe_validation_error
from treespec.errors import ConfigError

ModelSize = Literal["small", "medium", "large"]
ModeName = Literal["incr_dec", "sequence_specinfer", "tree_specinfer"]
Purpose = Literal["measure", "functional"]
PositiveInt = Annotated[int, Field(ge=1)]
EMBEDDED_CLUSTER = "embedded"


class WorkflowConfig(StrictModel):
    """config/config.yaml, with whatever the command line put over it."""

    platform: str = Field(min_length=1, description="a name in config/platforms/, or the path of a platform file")
    results_dir: Path = Field(Path("results"), description="everything measured and drawn goes below it")


class Mode(StrictModel):
    """How one decoding mode drafts."""

    mode: Literal["incremental", "sequence", "tree"]
    expansion: tuple[PositiveInt, ...] = Field(description="children per leaf at each draft step")


class SizeOverrides(StrictModel):
    """What one model size changes of an experiment; whatever is not named keeps its value."""

    modes: dict[ModeName, Mode] | None = Field(None, description="replaces the modes named, keeps the others")
    batch_sizes: tuple[PositiveInt, ...] | None = None
    peers: tuple[PeerName, ...] | None = None
    num_prompts: PositiveInt | None = None
    num_repeats: PositiveInt | None = None
    max_new_tokens: PositiveInt | None = None


class Overrides(SizeOverrides):
    """What a platform changes of an experiment; what a size changes stands above it."""

    sizes: tuple[ModelSize, ...] | None = None
    prompts: str | None = None
    ignore_eos: bool | None = None
    max_tokens_per_batch: PositiveInt | None = None


class SizeRoles(StrictModel):
    """The models that stand in the roles of one of the paper's model sizes, and the ranks they run on."""

    target: ModelRef
    drafts: tuple[ModelRef, ...] = Field(min_length=1)
    tensor_parallel_degree: PositiveInt = 1
    pipeline_parallel_degree: PositiveInt = 1
    purpose: Purpose = Field(
        "measure", description="functional: shows that it works; its times are the scheduler's and are not drawn"
    )
    overrides: SizeOverrides = Field(SizeOverrides(), description="in every experiment, above the platform's")

    @property
    def num_ranks(self) -> int:
        """Processes that serve the target together."""
        return self.tensor_parallel_degree * self.pipeline_parallel_degree


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
    sizes: dict[ModelSize, SizeRoles] = Field(min_length=1)
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
    size: ModelSize
    prompts: str


class Sweep(StrictModel):
    """config/experiments/<name>.yaml: model sizes x modes x batch sizes, under common settings."""

    description: str
    prefix: str = Field(pattern=NAME_PATTERN, description="how the artifact's scenario names of this sweep begin")
    sizes: tuple[ModelSize, ...] = Field(min_length=1)
    modes: dict[ModeName, Mode] = Field(min_length=1)
    batch_sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    peers: tuple[PeerName, ...] = Field((), description="third parties that serve the incremental scenarios too")
    prompts: str = Field(description="a prompt set that the platform names a file for")
    num_prompts: PositiveInt | None = Field(description="take the first so many; null: all")
    num_repeats: PositiveInt
    max_new_tokens: PositiveInt
    ignore_eos: bool
    max_tokens_per_batch: PositiveInt


ModelT = TypeVar("ModelT", bound=StrictModel)


def validated(model: type[ModelT], data: object, where: str) -> ModelT:
    """Plain data as a model; ConfigError names the place, what was received and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"configuration refused: {describe_validation_error(error)}", where=where) from error


def overridden(sweep: Sweep, changes: SizeOverrides, where: str) -> Sweep:
    """The sweep with everything that ``changes`` names; ConfigError where it does not fit."""
    named = changes.model_dump(exclude_unset=True)
    if named.get("modes"):
        named["modes"] = sweep.model_dump()["modes"] | named["modes"]
    return validated(Sweep, sweep.model_dump() | named, where)
