"""From a platform and an experiment to placements and scenarios: a pure plan, validated before any job starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peer_identity import PeerName, peer_scenarios
from rules.naming import GridPoint, named_settings, placement_name, scenario_name
from rules.roles import overridden, prompts_of, roles_of
from rules.settings import Platform, Purpose, SizeRoles
from rules.sweeps import ModelSize, Overrides, Sweep, Variant
from treespec.config import RunConfig, Scenario, fingerprints, validate_run_config
from treespec.errors import ConfigError

_ARTIFACT_MODES = ("incr_dec", "sequence_specinfer", "tree_specinfer")
_HARDWARE = {"device", "dtype", "num_threads", "cache_fraction", "max_sequence_length", "max_tree_nodes"}
_NOT_OF_PLACEMENT = {"purpose", "overrides"}
_STREAMING = ("offload", "offload_reserve_mib")
_MEASUREMENT = {
    *("num_prompts", "num_repeats", "batch_composition", "max_new_tokens", "ignore_eos", "max_tokens_per_batch"),
}


@dataclass(frozen=True)
class PlannedScenario:
    """One record that is expected: its grid point, and the fingerprint it must carry to count."""

    point: GridPoint
    mode_name: str
    """Of the grid, or the peer that serves it."""
    config: Scenario
    fingerprint: str
    mode: str
    """Of tables: the scenario's own, its name where it is none of the artifact's, or the peer that serves it."""
    settings: Mapping[str, str]
    """The settings beyond the artifact's own that its name tells."""


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
    role: str
    """Which size of the platform's holds its models."""
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


def plan_sweep(
    name: str, published: Sweep, platform: Platform, where: str, converted_models: Path
) -> tuple[PlannedPlacement, ...]:
    """One placement per model size and variant of a sweep as this platform runs it.

    ``where`` names the platform file in errors; ``converted_models`` is the folder for checkpoints made when loading.
    """
    sweep = overridden(published, platform.overrides.get(name, Overrides()), f"{where}, overrides.{name}")
    planner = _SweepPlanner(name, published, platform, where, converted_models)
    return tuple(job for size in dict.fromkeys(sweep.sizes) for job in planner.placements(size, sweep))


@dataclass(frozen=True)
class _SweepPlanner:
    """A sweep as published, and the platform that runs it with changes of its own."""

    experiment: str
    published: Sweep
    platform: Platform
    where: str
    converted_models: Path

    def placements(self, size: ModelSize, platforms: Sweep) -> list[PlannedPlacement]:
        """The jobs of one model size."""
        role = platforms.roles.get(size, size)
        roles = roles_of(role, self.platform, self.where)
        sweep = overridden(platforms, roles.overrides, f"{self.where}, sizes.{role}.overrides")
        return [self._placement(size, role, roles, sweep, variant) for variant in sweep.variants.values()]

    def _placement(
        self, size: ModelSize, role: str, roles: SizeRoles, sweep: Sweep, variant: Variant
    ) -> PlannedPlacement:
        """One job, batch sizes outside and modes inside so that modes are measured side by side."""
        grid = [
            GridPoint(size, batch_size, mode, prompts)
            for batch_size in sweep.batch_sizes
            for prompts in sweep.prompt_sets
            for mode in sweep.modes
        ]
        settings = [named_settings(sweep, self.published, point, variant) for point in grid]
        scenarios = [self._scenario(sweep, point, named) for point, named in zip(grid, settings, strict=True)]
        where = f"{self.where}, {self.experiment}, size {size}"
        placement = {
            "name": placement_name(self.experiment, size, self.published, variant),
            **self._models(roles, role, variant),
            **({"max_tree_nodes": sweep.max_tree_nodes} if sweep.max_tree_nodes else {}),
            "plugins": sweep.plugins,
        }
        job = validate_run_config({"placement": placement, "scenarios": scenarios}, where)
        identity = fingerprints(job)
        planned = tuple(
            PlannedScenario(point, point.mode, config, identity[config.name], _table_mode(point.mode, config), named)
            for point, config, named in zip(grid, job.scenarios, settings, strict=True)
        )
        peers = tuple(self._peer(job, planned, peer, where) for peer in dict.fromkeys(sweep.peers))
        return PlannedPlacement(self.experiment, role, roles.purpose, job, planned, peers)

    def _models(self, roles: SizeRoles, role: str, variant: Variant) -> dict[str, Any]:
        """What of a placement the platform, the size and the variant say."""
        if variant.offload and roles.offload is None:
            raise ConfigError(
                "nowhere to stream weights from",
                where=f"{self.where}, sizes.{role}",
                received="no offload",
                allowed=f"offload and offload_reserve_mib, which {self.experiment} needs",
            )
        own = roles.model_dump(exclude=_NOT_OF_PLACEMENT, exclude_none=True)
        if variant.offload_reserve_mib is not None:
            own["offload_reserve_mib"] = variant.offload_reserve_mib
        if not variant.offload:
            own = {key: value for key, value in own.items() if key not in _STREAMING}
        if variant.quantisation is not None:
            own["target"]["quantisation"] = variant.quantisation.model_dump()
        # What passes cost on ranks of several hosts is the network's as well, and of functional ones the scheduler's.
        costs = roles.purpose == "measure" and roles.num_ranks <= self.platform.ranks_on_a_node
        return {
            **self.platform.model_dump(include=_HARDWARE),
            **own,
            "converted_models": self.converted_models,
            "measure_costs": costs,
        }

    def _peer(self, job: RunConfig, ours: tuple[PlannedScenario, ...], peer: PeerName, where: str) -> PlannedPeer:
        placement, launch = job.placement, self.platform.launch
        streams, quantisation = placement.offload, placement.target.quantisation
        for what, received in (
            ("runs on this machine only", f"launch: {launch}" if self.platform.launcher.is_remote else None),
            ("streams no weights", f"offload: {streams}" if streams else None),
            ("serves weights as they are stored", f"quantisation: {quantisation.label}" if quantisation else None),
        ):
            if received:
                fix = "leave the peer out: peers: [] in the platform's overrides"
                raise ConfigError(f"{peer} {what}", where=where, received=received, fix=fix)
        by_name = {item.config.name: item for item in ours}
        served = peer_scenarios(job, {name: item.fingerprint for name, item in by_name.items()}, peer)
        planned = (
            PlannedScenario(own.point, peer, item.config, item.fingerprint, peer, own.settings)
            for item in served
            for own in [by_name[item.incremental]]
        )
        return PlannedPeer(f"{placement.name}-{peer}", peer, tuple(planned))

    def _scenario(self, sweep: Sweep, point: GridPoint, settings: dict[str, str]) -> dict[str, Any]:
        return {
            "name": scenario_name(sweep, point, settings),
            "prompts": prompts_of(point.prompts, self.platform, self.where),
            "max_requests_per_batch": point.batch_size,
            **sweep.modes[point.mode].model_dump(),
            **sweep.model_dump(include=_MEASUREMENT),
        }


def _table_mode(mode_name: str, config: Scenario) -> str:
    return config.mode if mode_name in _ARTIFACT_MODES else mode_name
