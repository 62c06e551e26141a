"""Text to token ids and back, by the tokenizer a model folder ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from treespec.config.weights import refuse_pointer
from treespec.errors import CheckpointError
from treespec.model.tokenizers.byte_pairs import gpt2_tokenizer
from treespec.model.tokenizers.sentence_pieces import SentencePieces


class Codec(Protocol):
    """What knows the tokens of one kind of tokenizer file."""

    def encode(self, text: str) -> list[int]:
        """Token ids, special tokens added as the files say."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text, special tokens left out."""

    def vocabulary(self) -> dict[str, int]:
        """Token -> id, added tokens included."""


class _Pipeline:
    """A pipeline of the tokenizers library; special tokens are added as its own post-processor says."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def vocabulary(self) -> dict[str, int]:
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))


FORMS: tuple[tuple[tuple[str, ...], Callable[[Path], Codec]], ...] = (
    (("tokenizer.json",), lambda folder: _Pipeline(Tokenizer.from_file(str(folder / "tokenizer.json")))),
    (("tokenizer.model",), SentencePieces.load),
    (("vocab.json", "merges.txt"), lambda folder: _Pipeline(gpt2_tokenizer(folder))),
)
"""Files of each form and what reads them; the first form that a folder has is taken."""


class TextTokenizer:
    """The tokenizer of a model folder, whatever its form."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Read what a model folder has. Raises CheckpointError."""
        for names, read in FORMS:
            if all((folder / name).exists() for name in names):
                return cls(_read(read, folder, names[0]))
        allowed = ", ".join(" with ".join(names) for names, _ in FORMS)
        raise CheckpointError("model folder has no tokenizer", where=str(folder / FORMS[0][0][0]), allowed=allowed)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        return self._codec.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        return self._codec.decode(token_ids)

    def vocabulary(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return self._codec.vocabulary()


def _read(read: Callable[[Path], Codec], folder: Path, name: str) -> Codec:
    try:
        refuse_pointer(folder / name)
        return read(folder)
    except CheckpointError:
        raise
    except Exception as error:  # both libraries raise bare exceptions for a damaged file
        where = str(folder / name)
        raise CheckpointError("tokenizer cannot be read", where=where, received=str(error)) from error
