"""Drafters and verifiers of third parties: one Python file each, named in the placement."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from treespec.draft.protocol import Drafter, DrafterFactory
from treespec.errors import ConfigError, TreespecError
from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows
from treespec.registry import Registry
from treespec.request import Request
from treespec.tree import Contract, Proposals, TokenTree
from treespec.verify import Verifier, VerifyResult, verifiers

T = TypeVar("T")


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
        for name, factory in _offered(methods.drafters, getattr(module, "DRAFTERS", {}), path):
            methods.drafters.register(name)(_drafter_factory(name, factory, path))
        for name, verifier in _offered(methods.verifiers, getattr(module, "VERIFIERS", {}), path):
            methods.verifiers.register(name)(CheckedVerifier(name, _instance(name, verifier, path)))
    return methods


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"treespec_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError("plugin cannot be read", where=str(path), allowed="an existing Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own file does wrong
        told = f"{type(error).__name__}: {error}"
        raise ConfigError("plugin fails when loaded", where=str(path), received=told) from error
    return module


def _offered(registry: Registry[Any], items: object, path: Path) -> Iterator[tuple[str, Any]]:
    """Names and items that can be told apart and that say what contracts they have."""
    if not isinstance(items, Mapping):
        raise ConfigError(
            f"a plugin's table of {registry.kind}s is no table",
            where=str(path),
            received=type(items).__name__,
            allowed="a dict of names",
        )
    for name, item in items.items():
        if name in registry:
            raise ConfigError(
                f"{registry.kind} {name!r} is there already", where=str(path), allowed="a name of its own"
            )
        contracts = getattr(item, "contracts", None)
        if not isinstance(contracts, Set) or not contracts or not all(isinstance(c, Contract) for c in contracts):
            raise ConfigError(
                f"{registry.kind} {name!r} does not say what contracts it has",
                where=str(path),
                received=repr(contracts),
                allowed="an attribute contracts, a frozenset of treespec.tree.Contract",
            )
        yield name, item


def _drafter_factory(name: str, item: Any, path: Path) -> DrafterFactory:
    if not callable(item):
        raise ConfigError(
            f"plugin drafter {name!r} cannot be made", where=str(path), received=repr(item), allowed="a class"
        )
    factory: DrafterFactory = item
    return factory


def _instance(name: str, item: Any, path: Path) -> Verifier:
    if isinstance(item, type):
        raise ConfigError(
            f"verifier {name!r} is a class",
            where=str(path),
            received=item.__name__,
            allowed="an instance",
            fix=f"write {item.__name__}()",
        )
    if not callable(getattr(item, "verify", None)):
        raise ConfigError(
            f"verifier {name!r} cannot judge",
            where=str(path),
            received=type(item).__name__,
            allowed="an object with a method verify",
        )
    verifier: Verifier = item
    return verifier


class _ThirdParty:
    """Somebody else's code: whatever goes wrong in it is one error that names it."""

    def __init__(self, kind: str, name: str) -> None:
        self._kind = kind
        self._name = name

    def _call(self, method: Callable[..., T], *arguments: object) -> T:
        try:
            return method(*arguments)
        except TreespecError:
            raise
        except Exception as error:  # whatever the user's own code does wrong
            raise self._wrong("fails", f"{type(error).__name__}: {error}", "see its own code and options") from error

    def _wrong(self, what: str, received: object, allowed: str) -> ConfigError:
        return ConfigError(f"plugin {self._kind} {self._name!r} {what}", received=received, allowed=allowed)


class CheckedVerifier(_ThirdParty):
    """A verifier of a third party, whose results are checked for their form; whether it is lossless, the audit says."""

    def __init__(self, name: str, verifier: Verifier) -> None:
        super().__init__("verifier", name)
        self._verifier = verifier
        self.contracts = frozenset(verifier.contracts)
        # What it leaves unsaid: it judges trees, at any temperature.
        self.chains_only = bool(getattr(verifier, "chains_only", False))
        self.greedy_only = bool(getattr(verifier, "greedy_only", False))

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        results = self._call(self._verifier.verify, proposals, target, draws)
        if not isinstance(results, list) or len(results) != len(proposals):
            raise self._wrong("does not judge every tree", _size(results), f"a list of {len(proposals)}")
        for item, result in zip(proposals, results, strict=True):
            self._check(item.tree, result, target.vocab_size)
        return results

    def _check(self, tree: TokenTree, result: object, vocab_size: int) -> None:
        if not isinstance(result, VerifyResult):
            raise self._wrong("judges by something else", type(result).__name__, "treespec.verify.VerifyResult")
        nodes, token = result.accepted_nodes, result.next_token_id
        if not isinstance(nodes, tuple) or not _is_root_path(tree, nodes):
            raise self._wrong("accepts what is no path from the root", nodes, "a tuple of nodes, root excluded")
        if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
            raise self._wrong("emits what is no token", token, f"0 to {vocab_size - 1}")


def _size(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__


def _is_root_path(tree: TokenTree, nodes: Sequence[object]) -> bool:
    parent = 0
    for node in nodes:
        if not isinstance(node, int | np.integer) or not 0 < node < len(tree) or tree.parents[node] != parent:
            return False
        parent = int(node)
    return True


class CheckedDrafter(_ThirdParty):
    """A drafter of a third party, whose every proposal is checked: a wrong root or token would change the output."""

    def __init__(self, name: str, make: Callable[[], Drafter], max_nodes: int, vocab_size: int) -> None:
        super().__init__("drafter", name)
        self._max_nodes = max_nodes
        self._vocab_size = vocab_size
        self._drafter = self._call(make)

    def propose(self, requests: Sequence[Request], max_depths: Sequence[int]) -> list[Proposals]:
        proposals = self._call(self._drafter.propose, requests, max_depths)
        if not isinstance(proposals, list) or len(proposals) != len(requests):
            raise self._wrong(
                "does not propose a tree for every request", _size(proposals), f"a list of {len(requests)}"
            )
        for request, item, max_depth in zip(requests, proposals, max_depths, strict=True):
            self._check(request, item, max_depth)
        return proposals

    def observe(self, requests: Sequence[Request], accepted: Sequence[Sequence[int]]) -> None:
        self._call(self._drafter.observe, requests, accepted)

    def forget(self, request: Request) -> None:
        self._call(self._drafter.forget, request)

    def _check(self, request: Request, item: object, max_depth: int) -> None:
        if not isinstance(item, Proposals):
            raise self._wrong("proposes something else than trees", type(item).__name__, "treespec.tree.Proposals")
        tree = item.tree
        if tree.token_ids[0] != request.last_token_id:
            raise self._wrong(
                "roots its tree in another token", tree.token_ids[0], f"the last, {request.last_token_id}"
            )
        if len(tree) - 1 > self._max_nodes:
            raise self._wrong("proposes too many nodes", len(tree) - 1, f"max_nodes = {self._max_nodes}")
        if tree.depths.max() > max_depth:
            raise self._wrong("proposes too deep a tree", tree.depths.max(), f"the depth asked for, {max_depth}")
        if tree.token_ids.min() < 0 or tree.token_ids.max() >= self._vocab_size:
            outside = [token for token in tree.token_ids.tolist() if not 0 <= token < self._vocab_size]
            raise self._wrong("proposes what is no token", outside[0], f"0 to {self._vocab_size - 1}")
