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
from typing import Any

from benchmarks.peer_identity import PeerName, peer_scenarios
from rules.settings import ModelSize, ModeName, Overrides, Platform, Purpose, SizeRoles, Sweep, overridden
from treespec.config import RunConfig, Scenario, fingerprints, validate_run_config
from treespec.errors import ConfigError

NAMED_SETTINGS = ("expansion", "prompts", "max_new_tokens", "ignore_eos", "max_tokens_per_batch")
_HARDWARE = {"device", "dtype", "num_threads", "cache_fraction", "max_sequence_length", "max_tree_nodes"}
_NOT_OF_PLACEMENT = {"purpose", "overrides"}
_MEASUREMENT = {"num_prompts", "num_repeats", "max_new_tokens", "ignore_eos", "max_tokens_per_batch"}


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
    purpose: Purpose
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


def plan_sweep(name: str, published: Sweep, platform: Platform, where: str) -> tuple[PlannedPlacement, ...]:
    """One placement per model size of a sweep as this platform runs it; ``where`` names the platform file in errors."""
    sweep = overridden(published, platform.overrides.get(name, Overrides()), f"{where}, overrides.{name}")
    planner = _SweepPlanner(name, published, platform, where)
    return tuple(planner.placement(size, sweep) for size in dict.fromkeys(sweep.sizes))


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
    _check_ranks(roles, platform, f"{where}, sizes.{size}")
    return roles


def _check_ranks(roles: SizeRoles, platform: Platform, where: str) -> None:
    """Every rank has a place, the ranks that share a layer one node, and every node that takes part as many ranks."""
    per_node, num_ranks, degree = platform.ranks_on_a_node, roles.num_ranks, roles.tensor_parallel_degree
    if num_ranks > platform.num_nodes * per_node:
        raise ConfigError(
            "more ranks than places",
            where=where,
            received=f"{num_ranks} ranks",
            allowed=f"at most {platform.num_nodes * per_node} (num_nodes x ranks_per_node, or x devices_per_node)",
        )
    is_on_one_node = num_ranks <= per_node
    if degree > per_node or (per_node % degree and not is_on_one_node):
        raise ConfigError(
            "layers are shared inside a node only",
            where=where,
            received=f"tensor_parallel_degree {degree} with {per_node} ranks on a node",
            allowed=f"at most {per_node}, on several nodes a divisor of it",
        )
    if num_ranks % per_node and not is_on_one_node:
        raise ConfigError(
            "nodes that are not filled evenly",
            where=where,
            received=f"{num_ranks} ranks",
            allowed=f"up to {per_node}, or a multiple of it (ranks_per_node)",
        )


def prompts_of(prompt_set: str, platform: Platform, where: str) -> Path:
    """The file that stands for a prompt set; ConfigError where the platform names none."""
    if prompt_set not in platform.prompts:
        raise ConfigError(
            "no file stands for this prompt set", where=where, received=prompt_set, allowed=sorted(platform.prompts)
        )
    return platform.prompts[prompt_set]


@dataclass(frozen=True)
class _SweepPlanner:
    """A sweep as published, and the platform that runs it with changes of its own."""

    experiment: str
    published: Sweep
    platform: Platform
    where: str

    def placement(self, size: ModelSize, platforms: Sweep) -> PlannedPlacement:
        """The job of one model size, batch sizes outside and modes inside so that modes are measured side by side."""
        roles = roles_of(size, self.platform, self.where)
        sweep = overridden(platforms, roles.overrides, f"{self.where}, sizes.{size}.overrides")
        grid = [(mode_name, batch_size) for batch_size in sweep.batch_sizes for mode_name in sweep.modes]
        placement = {
            "name": f"{self.experiment}-{size}",
            **roles.model_dump(exclude=_NOT_OF_PLACEMENT),
            **self.platform.model_dump(include=_HARDWARE),
        }
        scenarios = [self._scenario(sweep, size, mode_name, batch_size) for mode_name, batch_size in grid]
        job = validate_run_config(
            {"placement": placement, "scenarios": scenarios}, f"{self.where}, {self.experiment}, size {size}"
        )
        identity = fingerprints(job)
        planned = (
            PlannedScenario(size, mode_name, config, identity[config.name], config.mode)
            for (mode_name, _), config in zip(grid, job.scenarios, strict=True)
        )
        peers = (self._peer(size, job, identity, peer) for peer in dict.fromkeys(sweep.peers))
        return PlannedPlacement(self.experiment, roles.purpose, job, tuple(planned), tuple(peers))

    def _peer(self, size: ModelSize, job: RunConfig, identity: Mapping[str, str], peer: PeerName) -> PlannedPeer:
        if self.platform.launcher.is_remote:
            raise ConfigError(
                f"{peer} runs on this machine only",
                where=f"{self.where}, {self.experiment}, size {size}",
                received=f"launch: {self.platform.launch}",
                fix="leave the peer out: peers: [] in the platform's overrides",
            )
        served = peer_scenarios(job, identity, peer)
        planned = (PlannedScenario(size, peer, item.config, item.fingerprint, peer) for item in served)
        return PlannedPeer(f"{job.placement.name}-{peer}", peer, tuple(planned))

    def _scenario(self, sweep: Sweep, size: ModelSize, mode_name: ModeName, batch_size: int) -> dict[str, Any]:
        return {
            "name": self._scenario_name(sweep, size, mode_name, batch_size),
            "prompts": prompts_of(sweep.prompts, self.platform, self.where),
            "max_requests_per_batch": batch_size,
            **sweep.modes[mode_name].model_dump(),
            **sweep.model_dump(include=_MEASUREMENT),
        }

    def _scenario_name(self, sweep: Sweep, size: ModelSize, mode_name: ModeName, batch_size: int) -> str:
        ours, theirs = (_named_settings(item, mode_name) for item in (sweep, self.published))
        suffixes = "".join(f"-{key}_{ours[key]}" for key in NAMED_SETTINGS if ours[key] != theirs[key])
        return f"{sweep.prefix}_{size}-{batch_size}_batchsize-{mode_name}{suffixes}"


def _named_settings(sweep: Sweep, mode_name: ModeName) -> dict[str, str]:
    mode = sweep.modes.get(mode_name)
    values = sweep.model_dump() | {"expansion": ".".join(map(str, mode.expansion)) if mode else None}
    return {key: str(values[key]).lower() for key in NAMED_SETTINGS}
