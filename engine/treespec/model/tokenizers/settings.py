"""What the small files beside a tokenizer say of it: which tokens are special, and which are added to every text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treespec.errors import CheckpointError

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerSettings:
    """tokenizer_config.json, special_tokens_map.json and added_tokens.json of a folder, each of which may be absent."""

    config: dict[str, Any]
    roles: dict[str, str]  # bos_token, eos_token, ... -> the token
    added: dict[str, int]  # tokens beside the vocabulary

    @classmethod
    def read(cls, folder: Path) -> TokenizerSettings:
        """Raises CheckpointError for damaged files."""
        config = _object(folder / "tokenizer_config.json")
        named = _object(folder / "special_tokens_map.json") | config
        roles = {role: _content(named[role]) for role in ROLES if named.get(role) is not None}
        added = {_content(token): int(index) for index, token in config.get("added_tokens_decoder", {}).items()}
        return cls(config, roles, added | _object(folder / "added_tokens.json"))


def _content(token: Any) -> str:
    """A token is written as its text or as an object with details."""
    return str(token["content"] if isinstance(token, dict) else token)


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError("tokenizer settings are not valid JSON", where=str(path), received=str(error)) from error
    if not isinstance(value, dict):
        raise CheckpointError("tokenizer settings are no object", where=str(path), received=type(value).__name__)
    return value
