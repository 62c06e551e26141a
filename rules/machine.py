"""Says in one line what this machine lacks for a platform, before anything is started: python -m rules.machine --help.

What the machine has is what `treespec describe` finds, which computes something on every device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rules.platforms import read_yaml
from rules.settings import EMBEDDED_CLUSTER, Platform, SizeRoles, validated
from treespec.errors import ConfigError, TreespecError


def main() -> int:
    """Compare, and write down what this machine is where it has everything; else one line on stderr and 1."""
    parser = argparse.ArgumentParser(description="Compare a platform with this machine.")
    parser.add_argument("--platform-file", type=Path, required=True, help="platform with its arguments filled in")
    parser.add_argument("--sizes", nargs="*", default=None, help="model sizes in use; default: all of the platform")
    parser.add_argument("--output", type=Path, required=True, help="description of the machine, as JSON")
    args = parser.parse_args()
    try:
        platform = validated(Platform, read_yaml(args.platform_file), str(args.platform_file))
        machine = describe_machine()
        sizes = {size: roles for size, roles in platform.sizes.items() if args.sizes is None or size in args.sizes}
        if lacking := lacks(platform, sizes, machine):
            raise ConfigError(
                f"this machine is not what the platform needs: {' | '.join(lacking)}",
                where=f"platform {platform.description!r}",
                fix="bring what is missing, choose another platform, or leave sizes out in its overrides",
            )
    except TreespecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    temporary = args.output.with_name(f".{args.output.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(machine, indent=1) + "\n", encoding="utf-8")
    temporary.replace(args.output)
    return 0


def describe_machine() -> dict[str, Any]:
    """What `treespec describe` prints. Raises ConfigError where the engine cannot look at the devices."""
    done = subprocess.run(["treespec", "describe"], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        last_words = done.stderr.strip().splitlines()[-1:]
        raise ConfigError("this machine's devices cannot be used", where="treespec describe", received=last_words)
    machine: dict[str, Any] = json.loads(done.stdout)
    return machine


def lacks(platform: Platform, sizes: Mapping[str, SizeRoles], machine: Mapping[str, Any]) -> list[str]:
    """Everything the platform needs for these sizes that the machine has not, each beside what is here."""
    # Other machines are looked at by the check of their cluster; models lie here and are copied from here.
    devices = () if platform.launcher.is_remote else _device_lacks(platform, machine)
    ranks = () if platform.launcher.is_remote else _rank_lacks(platform, sizes, len(machine["gpus"]))
    return [*devices, *ranks, *_cluster_lacks(platform.cluster), *_model_lacks(sizes.values())]


def _device_lacks(platform: Platform, machine: Mapping[str, Any]) -> Iterable[str]:
    devices = {"cuda": machine["gpus"], "cpu": [machine["cpu"]]}[platform.device]
    broken = [index for index, device in enumerate(devices) if not device["computes"]]
    if broken:
        yield f"{platform.device} devices that compute wrongly: {broken}"
    if platform.device == "cuda" and len(devices) < platform.devices_per_node:
        yield f"CUDA devices: {platform.devices_per_node} needed, {len(devices)} here"
    if not devices or platform.min_device_memory_mib is None:
        return
    memory_mib = min(device["memory_mib"] for device in devices)
    if memory_mib < platform.min_device_memory_mib:
        yield f"memory of each device: {platform.min_device_memory_mib} MiB needed, {memory_mib} here"


def _rank_lacks(platform: Platform, sizes: Mapping[str, SizeRoles], num_gpus: int) -> Iterable[str]:
    """A GPU serves one rank; CPU ranks share the cores."""
    wide = {size: roles.num_ranks for size, roles in sizes.items() if roles.num_ranks > max(num_gpus, 1)}
    if wide and platform.device == "cuda":
        ranks = ", ".join(f"{num_ranks} for {size}" for size, num_ranks in wide.items())
        yield f"ranks: {ranks} needed, {num_gpus} GPUs here"


def _cluster_lacks(cluster: str | None) -> Iterable[str]:
    if cluster not in (None, EMBEDDED_CLUSTER) and not Path(cluster).is_file():
        yield f"cluster file that is not there: {cluster} (start from config/cluster.example.yaml)"


def _model_lacks(sizes: Iterable[SizeRoles]) -> Sequence[str]:
    models = {model.path: model for roles in sizes for model in (roles.target, *roles.drafts)}
    absent = [
        f"{path} (hub: {model.hub_id})" if model.hub_id else str(path)
        for path, model in models.items()
        if not path.is_dir()
    ]
    told = f"model folders that are not there: {', '.join(absent)}"
    if any(model.hub_id for path, model in models.items() if not path.is_dir()):
        told += "; those of the hub come with: snakemake download_models"
    return [told] if absent else []


if __name__ == "__main__":
    sys.exit(main())
