"""Which models a command is about: those named, or those that a platform says come from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.manifest import Precision, read_manifest
from model_store.places import CACHE
from model_store.store import SUFFIX
from rules.platforms import load_platform
from treespec.config import ModelRef
from treespec.errors import ConfigError
from treespec.log import say


@dataclass(frozen=True)
class Wanted:
    """A model, the cache folder it belongs to, and the precisions it is wanted in."""

    repository: str
    cache: Path
    precisions: tuple[Precision, ...]


def named_models(repositories: Iterable[str], cache: Path, precisions: Sequence[Precision]) -> list[Wanted]:
    """Each once."""
    return [Wanted(repository, cache, tuple(precisions)) for repository in dict.fromkeys(repositories)]


def platform_models(platform: str, sizes: Sequence[str] | None) -> list[Wanted]:
    """The models that a platform has from the hub; folders of one's own are left alone. Raises ConfigError."""
    loaded = load_platform(platform, {})
    if unknown := sorted(set(sizes or ()) - set(loaded.sizes)):
        raise ConfigError(
            "no such model size", where=f"platform {platform}", received=unknown, allowed=list(loaded.sizes)
        )
    found: dict[tuple[str, Path], list[Precision]] = {}
    for size, roles in loaded.sizes.items():
        for model in (roles.target, *roles.drafts) if sizes is None or size in sizes else ():
            if model.hub_id is None or _is_own(model.path):
                continue
            cache, precision = _place(model)
            precisions = found.setdefault((model.hub_id, cache), [])
            if precision not in precisions:
                precisions.append(precision)
    return [Wanted(repository, cache, tuple(precisions)) for (repository, cache), precisions in found.items()]


def _is_own(folder: Path) -> bool:
    """Whether a folder is there that did not come from here: hub_id is for folders that are absent."""
    is_own = folder.is_dir() and read_manifest(folder) is None
    if is_own:
        say(f"{folder}: a folder of your own, used as it is")
    return is_own


def _place(model: ModelRef) -> tuple[Path, Precision]:
    """Cache folder and precision, which a path says."""
    assert model.hub_id is not None
    for precision, suffix in SUFFIX.items():
        ending = Path(f"{model.hub_id}{suffix}").parts
        if model.path.parts[-len(ending) :] == ending:
            return Path(*model.path.parts[: -len(ending)]), precision
    raise ConfigError(
        "path does not fit the hub's name of the model",
        where=f"hub_id {model.hub_id}",
        received=str(model.path),
        allowed=" or ".join(f"{CACHE}/{model.hub_id}{suffix}" for suffix in SUFFIX.values()),
        fix="change the path in the platform file",
    )
