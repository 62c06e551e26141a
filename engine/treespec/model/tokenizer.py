"""Text to token ids and back, by the tokenizer a model folder ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from treespec.errors import CheckpointError


class TextTokenizer:
    """A tokenizer.json; special tokens are added as its own post-processor says."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Read ``tokenizer.json`` of a model folder. Raises CheckpointError."""
        path = folder / "tokenizer.json"
        if not path.exists():
            raise CheckpointError("model folder has no tokenizer", where=str(path), allowed="tokenizer.json")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise CheckpointError("tokenizer cannot be read", where=str(path), received=str(error)) from error

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        return list(self._tokenizer.encode(text).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def vocabulary(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))
