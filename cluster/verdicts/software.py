"""Whether a host has what runs call: programs, the environment, the project, the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.facts import Situation
from cluster.hosts import Host
from cluster.verdicts.verdict import (
    PROVISION,
    Verdict,
    absent_files,
    environment_of,
    failed,
    first_with,
    machine_of,
    passed,
)

MIN_PYTHON = (3, 11)


def python(situation: Situation, host: Host) -> Verdict:
    """An interpreter that the engine runs on and that can make an environment."""
    machine = machine_of(situation, host)
    name = situation.cluster.python
    if tuple(map(int, machine["python"].split(".")[:2])) < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        return failed(f"{name} is {machine['python']}; allowed: {wanted} or newer", "name a newer one as python")
    if not machine["has_venv"] and situation.hosts[host].environment is None:
        return failed(f"{name} {machine['python']} lacks venv or ensurepip", "apt-get install python3-venv")
    return passed(f"{name} is {machine['python']}")


def sudo(situation: Situation, host: Host) -> Verdict:
    """System packages can be brought where some are missing."""
    machine = machine_of(situation, host)
    if not machine["missing_packages"]:
        return passed("not needed: no package is missing")
    if machine["is_root"] or machine["sudo"]:
        return passed("the login is root" if machine["is_root"] else "without a password")
    missing = " ".join(machine["missing_packages"])
    reason = "sudo is not there" if machine["sudo"] is None else "sudo asks for a password"
    return failed(f"{reason}, and packages are missing: {missing}", f"as root there: apt-get install {missing}")


def packages(situation: Situation, host: Host) -> Verdict:
    """The named system packages are installed."""
    missing = machine_of(situation, host)["missing_packages"]
    if missing is None:
        return passed("not looked at: no dpkg there")
    if missing:
        return failed(f"missing: {' '.join(missing)}", PROVISION)
    return passed(" ".join(situation.cluster.packages) or "none named")


def programs(situation: Situation, host: Host) -> Verdict:
    """What every run calls there."""
    needed = {"rsync": "rsync", "timeout": "coreutils", "flock": "util-linux", "ip": "iproute2"}
    if situation.cluster.launcher == "mpirun":
        needed |= {"mpirun": "openmpi-bin", "ssh": "openssh-client"}
    there = machine_of(situation, host)["programs"]
    missing = [program for program in needed if there.get(program) is None]
    if missing:
        return failed(f"missing: {' '.join(missing)}", f"apt-get install {' '.join(needed[name] for name in missing)}")
    return passed(" ".join(needed))


def nccl(situation: Situation, host: Host) -> Verdict:
    """The environment's torch uses the GPUs, with the same NCCL on every host."""
    if situation.cluster.device == "cpu":
        return passed("not needed: device is cpu")
    found = environment_of(situation, host)["torch"]
    detail = f"torch for CUDA {found['cuda']} uses {found['num_gpus']} GPUs, NCCL {found['nccl']}"
    if found["num_gpus"] < host.slots or found["nccl"] is None:
        return failed(f"{detail}; slots: {host.slots}", "install the torch build that fits the driver")
    first, facts = first_with(situation, "environment")
    assert facts.environment is not None
    other = (facts.environment["torch"] or {}).get("nccl")
    if other != found["nccl"]:
        return failed(f"{detail}; {first.host}: {other}", "rm -r the environment's folder, then " + PROVISION)
    return passed(detail)


def environment(situation: Situation, host: Host) -> Verdict:
    """The engine and torch can be imported from the environment there."""
    found = situation.hosts[host].environment
    if found is None:
        return failed(f"not there: {situation.cluster.work_dir_of(host)}/venv", PROVISION)
    if errors := found["import_errors"]:
        return failed("; ".join(f"{module}: {error}" for module, error in errors.items()), PROVISION)
    versions = found["versions"]
    return passed(f"Python {found['python']}, treespec {versions['treespec']}, torch {versions['torch']}")


def same_versions(situation: Situation, host: Host) -> Verdict:
    """The same Python, packages and engine wheel as on the first host that has an environment."""
    first, facts = first_with(situation, "environment")
    assert facts.environment is not None
    ours, theirs = (_identity(item) for item in (environment_of(situation, host), facts.environment))
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if names:
        told = ", ".join(
            f"{name} {ours.get(name, 'none')} ({first.host}: {theirs.get(name, 'none')})" for name in names[:5]
        )
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return failed(told + more, f"{PROVISION}; where that finds nothing to do, remove the venv folder there first")
    return passed(f"{len(ours)} versions as on {first.host}")


def _identity(environment: Mapping[str, Any]) -> dict[str, str]:
    engine = {"engine wheel": (environment["engine_sha256"] or "unknown")[:12]}
    return {"Python": environment["python"], **environment["versions"], **engine}


def project(situation: Situation, host: Host) -> Verdict:
    """The folder that runs work in is there, with prompts."""
    found = situation.hosts[host].project
    folder = situation.cluster.work_dir_of(host) / "project"
    if found is None:
        return failed(f"not there: {folder}", PROVISION)
    num_prompts = sum(path.startswith("prompts/") for path in found)
    return passed(f"{folder}, {num_prompts} files of prompts")


def models(situation: Situation, host: Host) -> Verdict:
    """Every file of the chosen models is there in its full size."""
    if not situation.models:
        return passed("none chosen")
    absent = sorted(absent_files(situation, host))
    if absent:
        return failed(f"missing or cut short: {', '.join(absent[:3])}" + (" ..." if len(absent) > 3 else ""), PROVISION)
    return passed(", ".join(sorted(situation.models)))
