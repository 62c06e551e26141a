"""SentencePiece's tokenizer.model, as LLaMA, TinyLlama and Mistral are published with.

The library itself splits the text (Kudo and Richardson 2018). Conversions to other pipelines differ in details: one
that puts the prefix only before a text without a leading space gives other tokens for " a" than the model was trained
with.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treespec.errors import CheckpointError
from treespec.model.tokenizers.settings import TokenizerSettings

NO_PREFIX = bytes([3 << 3 | 2, 2, 3 << 3, 0])
"""``normalizer_spec { add_dummy_prefix: false }`` as a message; what follows a message overrides it field by field."""


class SentencePieces:
    """A model of the library, with its control tokens known in texts, and BOS before them where that is said."""

    def __init__(self, folder: Path, settings: TokenizerSettings) -> None:
        path = folder / "tokenizer.model"
        self._first = _processor(path, has_prefix=settings.config.get("add_prefix_space") is not False)
        # Older tokenizers, and those that do not say, put the prefix space after every special token, too.
        is_legacy = settings.config.get("legacy") is not False
        self._later = self._first if is_legacy else _processor(path, has_prefix=False)
        self._size = int(self._first.get_piece_size())
        control = [i for i in range(self._size) if self._first.is_control(i) or self._first.is_unknown(i)]
        self._special = {self._first.id_to_piece(i): i for i in control} | settings.added
        self._special_ids = frozenset(self._special.values())
        # Of two that begin alike the longer one is meant.
        longest_first = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._before = [self._first.bos_id()] if settings.config.get("add_bos_token", True) else []
        self._after = [self._first.eos_id()] if settings.config.get("add_eos_token", False) else []

    @classmethod
    def load(cls, folder: Path) -> SentencePieces:
        """Raises CheckpointError, also where the library is missing."""
        return cls(folder, TokenizerSettings.read(folder))

    def encode(self, text: str) -> list[int]:
        """Token ids; special tokens written in the text are those tokens."""
        token_ids: list[int] = []
        for index, part in enumerate(self._pattern.split(text)):
            if part in self._special:
                token_ids.append(self._special[part])
            elif part:
                token_ids += (self._later if index else self._first).encode(part)
        return [*self._before, *token_ids, *self._after]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text, special tokens and ids beyond the vocabulary left out."""
        pieces = [i for i in token_ids if i not in self._special_ids and i < self._size]
        return str(self._first.decode(pieces))

    def vocabulary(self) -> dict[str, int]:
        """Piece -> id."""
        return {self._first.id_to_piece(i): i for i in range(self._size)} | self._special


def _processor(path: Path, *, has_prefix: bool) -> Any:
    try:
        library = importlib.import_module("sentencepiece")
    except ImportError as error:
        raise CheckpointError(
            "reading a tokenizer.model needs the package sentencepiece",
            where=str(path),
            fix="pip install sentencepiece, or put the model's tokenizer.json beside it",
        ) from error
    return library.SentencePieceProcessor(model_proto=path.read_bytes() + (b"" if has_prefix else NO_PREFIX))
