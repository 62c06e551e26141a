"""Drafters and verifiers of third parties: one Python file each, named in the placement."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from treespec.draft.protocol import DrafterFactory
from treespec.errors import ConfigError
from treespec.registry import Registry
from treespec.verify import Verifier, verifiers


@dataclass(frozen=True)
class Methods:
    """Every verifier and every drafter of third parties that a run may name."""

    verifiers: Registry[Verifier] = field(default_factory=verifiers)
    drafters: Registry[DrafterFactory] = field(default_factory=lambda: Registry("plugin drafter"))


def load_methods(plugins: Sequence[Path]) -> Methods:
    """The engine's own methods and what the files' ``VERIFIERS`` and ``DRAFTERS`` add.

    A plugin is code: it runs when it is loaded. Raises ConfigError for a file that cannot be used.
    """
    methods = Methods()
    for path in plugins:
        module = _import(path)
        if not any(hasattr(module, name) for name in ("DRAFTERS", "VERIFIERS")):
            raise ConfigError(
                "plugin offers nothing", where=str(path), allowed="a module with a dict DRAFTERS, VERIFIERS or both"
            )
        _add(methods.drafters, getattr(module, "DRAFTERS", {}), path)
        _add(methods.verifiers, getattr(module, "VERIFIERS", {}), path)
    return methods


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"treespec_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError("plugin cannot be read", where=str(path), allowed="an existing Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own file does wrong
        told = f"{type(error).__name__}: {error}"
        raise ConfigError("plugin fails when loaded", where=str(path), received=told) from error
    return module


def _add(registry: Registry[Any], items: Mapping[str, Any], path: Path) -> None:
    for name, item in items.items():
        if name in registry:
            raise ConfigError(
                f"{registry.kind} {name!r} is there already", where=str(path), allowed="a name of its own"
            )
        registry.register(name)(item)
