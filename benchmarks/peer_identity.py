"""Which records a third party leaves beside ours: names and fingerprints, for planner and runner alike; torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, get_args

from treespec.config import RunConfig, Scenario
from treespec.errors import ConfigError

PeerName = Literal["transformers"]
PEERS: tuple[PeerName, ...] = get_args(PeerName)
OUR_MODE = "incr_dec"
"""What a peer's name takes the place of in the name of our incremental scenario."""


@dataclass(frozen=True)
class PeerScenario:
    """What a peer serves: our incremental scenario under the peer's name."""

    config: Scenario
    incremental: str
    fingerprint: str


def peer_version(peer: PeerName) -> str | None:
    """The installed version, found without importing it; None where it is not installed."""
    try:
        return metadata.version(peer)
    except metadata.PackageNotFoundError:
        return None


def peer_scenarios(job: RunConfig, fingerprints: Mapping[str, str], peer: PeerName) -> tuple[PeerScenario, ...]:
    """One scenario per incremental scenario of a job; ConfigError where the peer cannot serve what the job asks.

    ``fingerprints`` are those of the job's own scenarios. A peer that is not installed has an identity too, so that
    planning and looking at results work anywhere.
    """
    placement = job.placement
    num_ranks = placement.tensor_parallel_degree * placement.pipeline_parallel_degree
    if num_ranks > 1:
        raise ConfigError(
            f"{peer} is measured on one rank only",
            where=f"placement {placement.name!r}",
            received=f"{num_ranks} ranks",
            fix="leave the peer out: peers: [] in the platform's overrides",
        )
    version = peer_version(peer) or "not installed"
    return tuple(
        PeerScenario(
            config=scenario.model_copy(update={"name": _name(scenario, peer)}),
            incremental=scenario.name,
            fingerprint=hashlib.sha256(json.dumps([fingerprints[scenario.name], peer, version]).encode()).hexdigest(),
        )
        for scenario in job.scenarios
        if scenario.mode == "incremental"
    )


def _name(scenario: Scenario, peer: PeerName) -> str:
    if OUR_MODE not in scenario.name:
        raise ConfigError(
            f"no name for the record of {peer}",
            where=f"scenario {scenario.name!r}",
            allowed=f"incremental scenarios with {OUR_MODE!r} in their names, which the peer's name replaces",
        )
    if scenario.stop_strings:
        raise ConfigError(
            f"{peer} is measured without stop strings",
            where=f"scenario {scenario.name!r}",
            received=list(scenario.stop_strings),
        )
    return scenario.name.replace(OUR_MODE, peer)
