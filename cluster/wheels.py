"""The Python packages that the engine needs: which, in which versions, and as wheels that can be copied to hosts."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cluster.errors import ClusterError

EXTRA = "torch"
DOWNLOAD_S = 3600.0
LAST_WORDS = 400


def file_sha256(path: Path) -> str:
    """Digest of a file. Raises ClusterError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClusterError(
            "cannot be read", where=str(path), received=error.strerror, fix="snakemake builds the wheel"
        ) from error


def pins(wheel: Path) -> dict[str, str]:
    """Distribution -> version of everything the engine with its extra needs, as installed in this environment.

    Raises ClusterError where the wheel is none, or this environment lacks something.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = _needed(_requirements(wheel), {EXTRA})
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise ClusterError(
                f"{name} is not installed here, so that its version for the hosts is unknown",
                where="this machine",
                fix=f"pip install {name}, or make setup",
            ) from error
        found[name] = installed.version
        todo += _needed(installed.requires or (), requirement.extras)
    return dict(sorted(found.items()))


def public_pins(versions: dict[str, str]) -> dict[str, str]:
    """Without the names of local builds, such as torch's +cpu: an index offers the build that fits the host."""
    return {name: version.partition("+")[0] for name, version in versions.items()}


def _requirements(wheel: Path) -> list[str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise ClusterError("is not a wheel", where=str(wheel), fix="snakemake builds it") from error


def _needed(lines: Iterable[str], extras: set[str]) -> list[Requirement]:
    """The requirements that count on this machine with these extras."""
    found = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise ClusterError("requirement cannot be read", where="this environment", received=line) from error
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.append(requirement)
    return found


def platform_tag() -> str:
    """What wheels fetched here fit: the interpreter's minor version and the machine."""
    return f"{sys.version_info.major}.{sys.version_info.minor} {platform.machine()}"


def cache_folder() -> Path:
    """Where fetched wheels are kept on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "treespec/wheels"


def fetched(versions: dict[str, str], cache: Path) -> Path:
    """A folder below ``cache`` with these wheels and no others; fetched by pip, as it is set up here, where missing.

    Raises ClusterError with pip's last words.
    """
    lines = requirement_lines(versions)
    digest = hashlib.sha256("\n".join([platform_tag(), *lines]).encode()).hexdigest()[:12]
    folder = cache / digest
    if folder.is_dir():
        return folder
    part = cache / f".{digest}.{platform.node()}.{os.getpid()}.part"
    options = ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(part)]
    command = [sys.executable, "-m", "pip", "download", *options, *lines]
    try:
        part.mkdir(parents=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
        if done.returncode != 0:
            told = " ".join((done.stderr or done.stdout).split())[-LAST_WORDS:]
            raise ClusterError("wheels could not be fetched", where="this machine", received=f"pip: {told}")
        part.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            "fetching wheels took too long", where="this machine", allowed=f"{DOWNLOAD_S:g} s"
        ) from error
    except OSError as error:
        raise ClusterError("wheels cannot be kept", where=str(cache), received=error.strerror) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def requirement_lines(versions: dict[str, str]) -> list[str]:
    """As pip takes them."""
    return [f"{name}=={version}" for name, version in versions.items()]
