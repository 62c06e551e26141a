"""The configuration files as types: what may stand in config/, refused as a whole where it does not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from rules.launching import LAUNCHERS, Launcher, LauncherName
from rules.sweeps import BudgetMinutes, Overrides, PositiveInt, RoleName, SizeOverrides
from treespec.config import ModelRef, StrictModel
from treespec.config.strict import describe_validation_error
from treespec.errors import ConfigError

Purpose = Literal["measure", "functional"]
EMBEDDED_CLUSTER = "embedded"
LOG_SUFFIXES = (".out", ".txt")
"""Of the original artifact's files."""


class WorkflowConfig(StrictModel):
    """config/config.yaml, with whatever the command line put over it."""

    platform: str = Field(min_length=1, description="a name in config/platforms/, or the path of a platform file")
    results_dir: Path = Field(Path("results"), description="everything measured and drawn goes below it")
    raw_dir: Path | None = Field(
        None, description="folder of the original artifact's .out and .txt files: `figures` draws these instead of ours"
    )

    @field_validator("raw_dir")
    @classmethod
    def _holds_logs(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_dir():
            raise ValueError("a file" if folder.exists() else "no such folder")
        if folder is not None and not any(path.suffix in LOG_SUFFIXES for path in folder.iterdir()):
            raise ValueError("holds no .out or .txt file of the original artifact")
        return folder


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
    budget_minutes: BudgetMinutes = Field(description="what it may take on the laptop platform")
    size: RoleName
    streamed_size: RoleName = Field(description="of the part with offloading; size, where the platform has none")
    prompts: str


ModelT = TypeVar("ModelT", bound=StrictModel)


def validated(model: type[ModelT], data: object, where: str) -> ModelT:
    """Plain data as a model; ConfigError names the place, what was received and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"configuration refused: {describe_validation_error(error)}", where=where) from error
