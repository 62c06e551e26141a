"""Facts of a checkpoint, read from its config.json; torch-free."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treespec.errors import CheckpointError


@dataclass(frozen=True)
class ModelSpec:
    """The sizes and constants a decoder is built from, in the words of this project."""

    architecture: str
    vocab_size: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    max_positions: int
    tie_embeddings: bool
    eos_token_ids: tuple[int, ...]
    rope_base: float = 0.0  # families with rotary positions


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises CheckpointError."""
    return _read_object(folder / "config.json")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            "model configuration cannot be read",
            where=str(path),
            received=error.strerror,
            allowed="a folder in the Hugging Face layout",
        ) from error
    except ValueError as error:
        raise CheckpointError("model configuration is not valid JSON", where=str(path), received=str(error)) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            "model configuration is not a JSON object", where=str(path), received=type(config).__name__
        )
    return config


def architecture_of(config: dict[str, Any], folder: Path) -> str:
    """The first entry of ``architectures``."""
    names = config.get("architectures")
    if not names:
        raise CheckpointError("model configuration names no architecture", where=str(folder / "config.json"))
    return str(names[0])


class ConfigReader:
    """Reads fields of a config.json; a missing one is one clear error."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self._config = config
        self._folder = folder

    def need(self, key: str) -> Any:
        """A field that must be there."""
        value = self._config.get(key)
        if value is None:
            raise CheckpointError(f"model configuration lacks {key!r}", where=str(self._folder / "config.json"))
        return value

    def get(self, key: str, *, default: Any) -> Any:
        """A field or its default; an explicit null counts as missing."""
        value = self._config.get(key)
        return default if value is None else value

    def require_only(self, only: dict[str, Any]) -> None:
        """Refuse variants of a family that its decoder does not compute: each key may only hold this value."""
        for key, value in only.items():
            if self.get(key, default=value) != value:
                raise self.unsupported(key, self._config[key], value)

    def unsupported(self, what: str, received: object, allowed: object) -> CheckpointError:
        """The error for a variant this engine would compute wrongly."""
        return CheckpointError(
            f"this variant of the architecture is not supported: {what}",
            where=str(self._folder / "config.json"),
            received=received,
            allowed=allowed,
        )

    def eos_token_ids(self) -> tuple[int, ...]:
        """One id or several, from generation_config.json where there is one, as generation elsewhere does."""
        eos = self._config.get("eos_token_id")
        path = self._folder / "generation_config.json"
        if path.exists():
            eos = _read_object(path).get("eos_token_id", eos)
        if eos is None:
            return ()
        return tuple(eos) if isinstance(eos, list) else (int(eos),)
