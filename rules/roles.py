"""What a platform puts in the places that experiments name and changes of them, and whether its ranks have room."""

from __future__ import annotations

from pathlib import Path

from rules.settings import Platform, SizeRoles, validated
from rules.sweeps import SizeOverrides, Sweep
from treespec.errors import ConfigError


def roles_of(size: str, platform: Platform, where: str) -> SizeRoles:
    """The models of a size of the platform's; ConfigError where it has none or too few devices for their ranks."""
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


def overridden(sweep: Sweep, changes: SizeOverrides, where: str) -> Sweep:
    """The sweep with everything that ``changes`` names; ConfigError where it does not fit."""
    published, named = sweep.model_dump(), changes.model_dump(exclude_unset=True)
    for key in ("modes", "variants", "roles"):
        if named.get(key):
            left_out = {name for name, value in named[key].items() if value is None}
            if unknown := sorted(left_out - published[key].keys()):
                raise ConfigError(
                    f"{key} left out that are not there", where=where, received=unknown, allowed=sorted(published[key])
                )
            merged = published[key] | named[key]
            named[key] = {name: value for name, value in merged.items() if name not in left_out}
    return validated(Sweep, published | named, where)
