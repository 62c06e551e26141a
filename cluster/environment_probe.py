"""Looks at the Python environment it runs in and prints one JSON object. Standard library only.

Sent over stdin to ``<environment>/bin/python -I -``; with the argument ``import`` it imports engine and torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

ENGINE = "treespec"
ENGINE_DIGEST = "engine.sha256"  # in the environment's folder


def versions() -> dict[str, str]:
    """Distribution -> version, names as indexes normalise them."""
    return {
        re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(): item.version
        for item in importlib.metadata.distributions()
        if item.metadata["Name"]
    }


def engine_sha256() -> str | None:
    """The digest of the wheel that the engine was installed from, as provisioning wrote it down.

    pip's own note lacks the digest before pip 23.1.
    """
    try:
        importlib.metadata.distribution(ENGINE)
        return Path(sys.prefix, ENGINE_DIGEST).read_text(encoding="ascii").strip()
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return None


def import_error(module: str) -> str | None:
    """Why a module cannot be imported; None where it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # what half an installation raises
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def accelerator() -> dict[str, Any]:
    """What torch, imported before, was built for and finds here."""
    torch = sys.modules["torch"]
    is_usable = torch.cuda.is_available()
    nccl = torch.cuda.nccl.version() if is_usable else None
    return {
        "cuda": torch.version.cuda,
        "num_gpus": torch.cuda.device_count() if is_usable else 0,
        "nccl": ".".join(map(str, nccl)) if isinstance(nccl, tuple) else nccl,
    }


def report(*, is_imported: bool) -> dict[str, Any]:
    """Everything."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": versions(),
        "engine_sha256": engine_sha256(),
    }
    if is_imported:
        errors = {module: import_error(module) for module in (ENGINE, "torch")}
        found["import_errors"] = {module: error for module, error in errors.items() if error is not None}
        found["torch"] = accelerator() if errors["torch"] is None else None
    return found


if __name__ == "__main__":
    json.dump(report(is_imported="import" in sys.argv[1:]), sys.stdout)
