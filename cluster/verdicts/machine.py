"""Whether a host is machine enough: GPUs, memory, disk, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.facts import Situation
from cluster.hosts import Host
from cluster.verdicts.verdict import GIB, Verdict, absent_files, failed, first_with, machine_of, passed

MIN_OPEN_FILES = 1024
WORK_BYTES = GIB // 4  # logs and records of runs
# Free disk that making an environment takes. Measured: 1.2 GB with torch's CPU build, copied wheels included; 5.1 GB
# with the build that an index brings, which carries the libraries for CUDA.
CPU_ENVIRONMENT_BYTES, ENVIRONMENT_BYTES = 2 * GIB, 8 * GIB


def gpus(situation: Situation, host: Host) -> Verdict:
    """A GPU per slot, the same model, memory and driver on every host."""
    if situation.cluster.device == "cpu":
        return passed("not needed: device is cpu")
    machine = machine_of(situation, host)
    there = machine["gpus"]
    if there is None:
        return failed("nvidia-smi is not there or fails", "install NVIDIA's driver, or set device: cpu")
    detail = _described_gpus(machine)
    if len(there) < host.slots:
        return failed(f"{detail}; slots: {host.slots}", "lower its slots in cluster.yaml")
    kinds = {(item["name"], item["memory_mib"], item["driver"]) for item in there}
    first, facts = first_with(situation, "machine")
    assert facts.machine is not None
    if len(kinds) > 1 or _described_kind(facts.machine) != _described_kind(machine):
        return failed(f"{detail}; {first.host}: {_described_gpus(facts.machine)}", "use hosts of one kind")
    return passed(detail)


def _described_gpus(machine: Mapping[str, Any]) -> str:
    return f"{len(machine['gpus'] or ())} x {_described_kind(machine)}"


def _described_kind(machine: Mapping[str, Any]) -> str:
    kinds = sorted(
        {f"{item['name']}, {item['memory_mib']} MiB, driver {item['driver']}" for item in machine["gpus"] or ()}
    )
    return f"{' | '.join(kinds) or 'no GPU'}, CUDA {machine['cuda']}"


def memory(situation: Situation, host: Host) -> Verdict:
    """Room for this host's share of the largest model; a run may need more, never less."""
    found = machine_of(situation, host)["memory"]
    if found is None:
        return passed("not told by the system")
    ranks = f"{host.slots} of {situation.cluster.num_slots} ranks"
    largest = max(map(situation.size_of, situation.models), default=0)
    share = largest * host.slots / situation.cluster.num_slots
    detail = f"{found['available'] / GIB:.1f} of {found['total'] / GIB:.1f} GiB available"
    if situation.models:
        detail += f", {share / GIB:.2g} GiB of the largest model on its {ranks}"
    if found["available"] < share:
        return failed(detail, "end what takes the memory, or add hosts")
    return passed(detail)


def disk(situation: Situation, host: Host) -> Verdict:
    """Room for what provisioning has still to bring, and for runs."""
    facts = situation.hosts[host]
    folder = str(situation.cluster.work_dir_of(host))
    free = machine_of(situation, host)["free_disk"][folder]
    if free is None:
        return passed("not told by the system")
    needed = 0 if situation.cluster.shared_dir else sum(wanted[0] for wanted in absent_files(situation, host).values())
    if facts.environment is None:
        is_cpu_build = situation.cluster.device == "cpu" and situation.cluster.wheels == "copied"
        needed += CPU_ENVIRONMENT_BYTES if is_cpu_build else ENVIRONMENT_BYTES
    needed += WORK_BYTES
    detail = f"{free / GIB:.2f} GiB free at {folder}, {needed / GIB:.2f} GiB needed"
    return passed(detail) if free >= needed else failed(detail, "free some, or set another work_dir")


def limits(situation: Situation, host: Host) -> Verdict:
    """Open files, shared memory (NCCL's and gloo's), cores."""
    found = machine_of(situation, host)["limits"]
    shared = "unknown" if found["shared_memory"] is None else f"{found['shared_memory'] / GIB:.1f} GiB"
    detail = f"{found['open_files']} open files, {shared} of shared memory, {found['cores']} cores"
    if found["open_files"] < MIN_OPEN_FILES:
        return failed(f"{detail}; allowed: {MIN_OPEN_FILES} open files", "raise nofile in /etc/security/limits.conf")
    return passed(detail)
