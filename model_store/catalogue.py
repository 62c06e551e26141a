"""config/models.yaml: which files of a repository are wanted, and which models the experiments name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from model_store.errors import HubError
from treespec.config import StrictModel
from treespec.config.strict import describe_validation_error
from treespec.errors import ConfigError

TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})


class KnownModel(StrictModel):
    """What is particular to a repository."""

    tokenizer_from: str | None = Field(None, description="whose tokenizer to take where the repository has none")


class Catalogue(StrictModel):
    """File names and patterns, all of a repository's top folder."""

    description: tuple[str, ...]
    tokenizer: tuple[str, ...]
    weights: tuple[tuple[str, ...], ...] = Field(description="by preference")
    models: dict[str, KnownModel]

    def repository(self, name: str) -> str:
        """organisation/name of a model, which a known one may be named without. Raises ConfigError."""
        if name.count("/") == 1 and all(name.split("/")):
            return name
        for repository in self.models:
            if repository.endswith(f"/{name}"):
                return repository
        raise ConfigError(
            "unknown model", received=name, allowed=f"organisation/name, or one of {', '.join(self.models)}"
        )

    def wanted(self, repository: str, names: Iterable[str]) -> list[str]:
        """The files to fetch of what a repository has. Raises HubError where they are no model."""
        top = sorted(name for name in names if "/" not in name)
        if "config.json" not in top:
            raise HubError("repository holds no config.json", where=repository, fix="name a repository of a model")
        weights = self.weights_of(top)
        if weights is None:
            kinds = [pattern for kind in self.weights for pattern in kind]
            fix = "name a repository of a model in one of these formats"
            allowed = ", ".join(kinds)
            raise HubError("repository holds no weights that can be read", where=repository, allowed=allowed, fix=fix)
        return [*self.described(top), *weights]

    def weights_of(self, names: Iterable[str]) -> list[str] | None:
        """Weights and their index, of the first kind that there is."""
        names = list(names)
        kinds = (_matching(kind, names) for kind in self.weights)
        return next((chosen for chosen in kinds if any(map(_is_weights, chosen))), None)

    def described(self, names: Iterable[str]) -> list[str]:
        """Configuration and tokenizer."""
        return _matching((*self.description, *self.tokenizer), names)

    def tokenizer_donor(self, repository: str, names: Collection[str]) -> str | None:
        """The repository whose tokenizer stands in, where this one has none and another is known."""
        if any(files <= set(names) for files in TOKENIZERS):
            return None
        return self.models.get(repository, KnownModel()).tokenizer_from

    def tokenizer_files(self, names: Iterable[str]) -> list[str]:
        """Those of a repository's files that make its tokenizer."""
        return _matching(self.tokenizer, sorted(names))


def load_catalogue(path: Path) -> Catalogue:
    """Raises ConfigError."""
    try:
        return Catalogue.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError("catalogue cannot be read", where=str(path), received=error.strerror) from error
    except yaml.YAMLError as error:
        raise ConfigError("not valid YAML", where=str(path), received=str(error)) from error
    except ValidationError as error:
        raise ConfigError(f"catalogue refused: {describe_validation_error(error)}", where=str(path)) from error


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
