"""Facts of a checkpoint, read from its config.json; torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treespec.errors import CheckpointError

if TYPE_CHECKING:
    from treespec.ops.rope import RopeScaling


@dataclass(frozen=True)
class ModelSpec:
    """The sizes and constants a decoder is built from, in the words of this project.

    What variants of a family differ in stands here as data; a decoder asks for it, never for a name.
    """

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
    biases: frozenset[str] = frozenset()  # linear maps of a layer that have one, by the last part of their names
    rope_base: float = 0.0  # families with rotary positions
    rope_scaling: RopeScaling | None = None
    window: int | None = None  # positions that a token sees, its own among them, in the windowed layers
    windowed_layers: frozenset[int] = frozenset()
    projected_size: int | None = None  # width of the token tables where it is not the hidden one
    norm_first: bool = True  # each part of a layer reads the normalised residual; otherwise their sum is normalised
    final_norm: bool = True

    def parameters(self, prefix: str, maps: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
        """Names and shapes of a layer's linear maps ``[out, in]``, biases included, for names behind ``prefix``."""
        shapes: dict[str, tuple[int, ...]] = {f"{prefix}{name}.weight": shape for name, shape in maps.items()}
        biased = {name: shape for name, shape in maps.items() if name.rpartition(".")[2] in self.biases}
        return shapes | {f"{prefix}{name}.bias": shape[:1] for name, shape in biased.items()}


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

    def size(self, key: str, *, default: int | None = None, at_least: int = 1) -> int:
        """A whole number; one that must be there if it has no default."""
        value = self.need(key) if default is None else self.get(key, default=default)
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise self.contradiction(key, json.dumps(value), f"a whole number, at least {at_least}")
        return value

    def heads(self, hidden_size: int) -> tuple[int, int, int]:
        """Query heads, key/value heads and the size of each, which may be given apart from the hidden one."""
        num_heads = self.size("num_attention_heads")
        num_kv_heads = self.size("num_key_value_heads", default=num_heads)
        if num_heads % num_kv_heads:
            allowed = f"a divisor of num_attention_heads {num_heads}"
            raise self.contradiction("num_key_value_heads", num_kv_heads, allowed)
        if self._config.get("head_dim") is None and hidden_size % num_heads:
            raise self.contradiction("num_attention_heads", num_heads, f"a divisor of hidden_size {hidden_size}")
        return num_heads, num_kv_heads, self.size("head_dim", default=hidden_size // num_heads)

    def window(self, *, default: int | None) -> int | None:
        """``sliding_window``: an explicit null means that there is none, not that it is missing."""
        if self._config.get("sliding_window", default) is None:
            return None
        return self.size("sliding_window", default=default)

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

    def contradiction(self, what: str, received: object, allowed: object) -> CheckpointError:
        """The error for fields that no model can have together."""
        where = str(self._folder / "config.json")
        return CheckpointError(f"no model can have this {what}", where=where, received=received, allowed=allowed)

    def eos_token_ids(self) -> tuple[int, ...]:
        """One id or several, from generation_config.json where there is one, as generation elsewhere does."""
        eos = self._config.get("eos_token_id")
        path = self._folder / "generation_config.json"
        if path.exists():
            eos = _read_object(path).get("eos_token_id", eos)
        if eos is None:
            return ()
        return tuple(eos) if isinstance(eos, list) else (int(eos),)
