"""From a platform and an experiment to placements and scenarios: a pure plan, validated before any job starts.

Scenario names are the artifact's (``server_small-4_batchsize-tree_specinfer``) as long as the experiment file's own
settings are used; every setting a platform overrides that changes *what* is measured appends ``-<key>_<value>`` in the
order of NAMED_SETTINGS. How *much* is measured (prompts taken, repeats) never shows in a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from benchmarks.peer_identity import PeerName, peer_scenarios
from treespec.config import ModelRef, RunConfig, Scenario, StrictModel, fingerprints, validate_run_config
from treespec.config.run import NAME_PATTERN, describe_validation_error
from treespec.errors import ConfigError

ModelSize = Literal["small", "medium", "large"]
ModeName = Literal["incr_dec", "sequence_specinfer", "tree_specinfer"]
PositiveInt = Annotated[int, Field(ge=1)]
NAMED_SETTINGS = ("expansion", "prompts", "max_new_tokens", "ignore_eos", "max_tokens_per_batch")
_HARDWARE = {"device", "dtype", "num_threads", "cache_fraction", "max_sequence_length", "max_tree_nodes"}
_MEASUREMENT = {"num_prompts", "num_repeats", "max_new_tokens", "ignore_eos", "max_tokens_per_batch"}


class WorkflowConfig(StrictModel):
    """config/config.yaml, with whatever the command line put over it."""

    platform: str = Field(min_length=1, description="a name in config/platforms/, or the path of a platform file")
    results_dir: Path = Field(Path("results"), description="everything measured and drawn goes below it")


class SizeRoles(StrictModel):
    """The models that stand in the roles of one of the paper's model sizes, and the ranks they run on."""

    target: ModelRef
    drafts: tuple[ModelRef, ...] = Field(min_length=1)
    tensor_parallel_degree: PositiveInt = 1
    pipeline_parallel_degree: PositiveInt = 1

    @property
    def num_ranks(self) -> int:
        """Processes that serve the target together."""
        return self.tensor_parallel_degree * self.pipeline_parallel_degree


class Mode(StrictModel):
    """How one decoding mode drafts."""

    mode: Literal["incremental", "sequence", "tree"]
    expansion: tuple[PositiveInt, ...] = Field(description="children per leaf at each draft step")


class Overrides(StrictModel):
    """What a platform changes of an experiment; whatever is not named keeps the experiment's value."""

    sizes: tuple[ModelSize, ...] | None = None
    modes: dict[ModeName, Mode] | None = Field(None, description="replaces the modes named, keeps the others")
    batch_sizes: tuple[PositiveInt, ...] | None = None
    peers: tuple[PeerName, ...] | None = None
    prompts: str | None = None
    num_prompts: PositiveInt | None = None
    num_repeats: PositiveInt | None = None
    max_new_tokens: PositiveInt | None = None
    ignore_eos: bool | None = None
    max_tokens_per_batch: PositiveInt | None = None


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


@dataclass(frozen=True)
class PlannedScenario:
    """One record that is expected: its grid point, and the fingerprint it must carry to count."""

    size: str
    mode_name: str
    config: Scenario
    fingerprint: str
    mode: str
    """The scenario's own mode, or the peer that serves it."""


@dataclass(frozen=True)
class PlannedPeer:
    """The job of a third party beside a placement's own: the records it has to leave."""

    name: str
    peer: str
    scenarios: tuple[PlannedScenario, ...]

    @property
    def fingerprint(self) -> str:
        """As a placement's."""
        return _joint_fingerprint(self.scenarios)


@dataclass(frozen=True)
class PlannedPlacement:
    """One job: the configuration of one engine process, and the records it has to leave."""

    experiment: str
    job: RunConfig
    scenarios: tuple[PlannedScenario, ...]
    peers: tuple[PlannedPeer, ...]

    @property
    def name(self) -> str:
        """The placement's name, unique over all experiments."""
        return self.job.placement.name

    @property
    def jobs(self) -> tuple[PlannedPlacement | PlannedPeer, ...]:
        """Itself and the peers beside it: whatever has records and a marker."""
        return (self, *self.peers)

    @property
    def fingerprint(self) -> str:
        """First 12 hex digits of the sha256 over the scenarios' fingerprints: another configuration, another marker."""
        return _joint_fingerprint(self.scenarios)


def _joint_fingerprint(scenarios: tuple[PlannedScenario, ...]) -> str:
    joined = "\n".join(sorted(scenario.fingerprint for scenario in scenarios))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


ModelT = TypeVar("ModelT", bound=StrictModel)


def validated(model: type[ModelT], data: object, where: str) -> ModelT:
    """Plain data as a model; ConfigError names the place, what was received and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"configuration refused: {describe_validation_error(error)}", where=where) from error


def plan_sweep(name: str, published: Sweep, platform: Platform, where: str) -> tuple[PlannedPlacement, ...]:
    """One placement per model size of a sweep as this platform runs it; ``where`` names the platform file in errors."""
    overrides = platform.overrides.get(name)
    changes = overrides.model_dump(exclude_unset=True) if overrides else {}
    if changes.get("modes"):
        changes["modes"] = published.model_dump()["modes"] | changes["modes"]
    sweep = validated(Sweep, published.model_dump() | changes, f"{where}, overrides.{name}")
    planner = _SweepPlanner(name, published, sweep, platform, where)
    return tuple(planner.placement(size) for size in dict.fromkeys(sweep.sizes))


def roles_of(size: ModelSize, platform: Platform, where: str) -> SizeRoles:
    """The models of one size; ConfigError where the platform has none or too few devices for their ranks."""
    roles = platform.sizes.get(size)
    if roles is None:
        raise ConfigError(
            "no models stand in this size",
            where=where,
            received=size,
            allowed=sorted(platform.sizes),
            fix="name its models under sizes, or leave the size out with overrides: {<experiment>: {sizes: [...]}}",
        )
    num_devices = platform.num_nodes * platform.devices_per_node
    if roles.num_ranks > num_devices:
        raise ConfigError(
            "more ranks than devices",
            where=f"{where}, sizes.{size}",
            received=f"{roles.num_ranks} ranks",
            allowed=f"at most {num_devices} (num_nodes x devices_per_node)",
        )
    if roles.tensor_parallel_degree > platform.devices_per_node:
        raise ConfigError(
            "layers are shared inside a node only",
            where=f"{where}, sizes.{size}",
            received=f"tensor_parallel_degree {roles.tensor_parallel_degree}",
            allowed=f"at most {platform.devices_per_node} (devices_per_node)",
        )
    return roles


def prompts_of(prompt_set: str, platform: Platform, where: str) -> Path:
    """The file that stands for a prompt set; ConfigError where the platform names none."""
    if prompt_set not in platform.prompts:
        raise ConfigError(
            "no file stands for this prompt set", where=where, received=prompt_set, allowed=sorted(platform.prompts)
        )
    return platform.prompts[prompt_set]


@dataclass(frozen=True)
class _SweepPlanner:
    """A sweep as published and as this platform runs it."""

    experiment: str
    published: Sweep
    sweep: Sweep
    platform: Platform
    where: str

    def placement(self, size: ModelSize) -> PlannedPlacement:
        """The job of one model size, batch sizes outside and modes inside so that modes are measured side by side."""
        grid = [(mode_name, batch_size) for batch_size in self.sweep.batch_sizes for mode_name in self.sweep.modes]
        placement = {
            "name": f"{self.experiment}-{size}",
            **roles_of(size, self.platform, self.where).model_dump(),
            **self.platform.model_dump(include=_HARDWARE),
        }
        scenarios = [self._scenario(size, mode_name, batch_size) for mode_name, batch_size in grid]
        job = validate_run_config(
            {"placement": placement, "scenarios": scenarios}, f"{self.where}, {self.experiment}, size {size}"
        )
        identity = fingerprints(job)
        planned = (
            PlannedScenario(size, mode_name, config, identity[config.name], config.mode)
            for (mode_name, _), config in zip(grid, job.scenarios, strict=True)
        )
        peers = (self._peer(size, job, identity, peer) for peer in dict.fromkeys(self.sweep.peers))
        return PlannedPlacement(self.experiment, job, tuple(planned), tuple(peers))

    def _peer(self, size: ModelSize, job: RunConfig, identity: Mapping[str, str], peer: PeerName) -> PlannedPeer:
        served = peer_scenarios(job, identity, peer)
        planned = (PlannedScenario(size, peer, item.config, item.fingerprint, peer) for item in served)
        return PlannedPeer(f"{job.placement.name}-{peer}", peer, tuple(planned))

    def _scenario(self, size: ModelSize, mode_name: ModeName, batch_size: int) -> dict[str, Any]:
        return {
            "name": self._scenario_name(size, mode_name, batch_size),
            "prompts": prompts_of(self.sweep.prompts, self.platform, self.where),
            "max_requests_per_batch": batch_size,
            **self.sweep.modes[mode_name].model_dump(),
            **self.sweep.model_dump(include=_MEASUREMENT),
        }

    def _scenario_name(self, size: ModelSize, mode_name: ModeName, batch_size: int) -> str:
        ours, theirs = (_named_settings(sweep, mode_name) for sweep in (self.sweep, self.published))
        suffixes = "".join(f"-{key}_{ours[key]}" for key in NAMED_SETTINGS if ours[key] != theirs[key])
        return f"{self.sweep.prefix}_{size}-{batch_size}_batchsize-{mode_name}{suffixes}"


def _named_settings(sweep: Sweep, mode_name: ModeName) -> dict[str, str]:
    mode = sweep.modes.get(mode_name)
    values = sweep.model_dump() | {"expansion": ".".join(map(str, mode.expansion)) if mode else None}
    return {key: str(values[key]).lower() for key in NAMED_SETTINGS}
