"""The Python standard library's sources as a training text with held-out files.

The text differs between Python versions, so trained weights are shipped and this recipe is the fallback.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD_TOKEN_ID, BOS_TOKEN_ID, EOS_TOKEN_ID = 0, 1, 2
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
HELD_OUT_SHARE = 25  # one file in so many is never trained on
MIN_CHARACTERS, MAX_CHARACTERS = 400, 400_000
TEST_FOLDERS = {"test", "tests", "idlelib"}
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "lib2to3", "encodings", "pydoc_data", "__pycache__"}
MERGE_SAMPLE_CHARACTERS = 6_000_000


@dataclass(frozen=True)
class SourceFile:
    """One source file: its path inside the library, its text, and the part of the corpus it belongs to."""

    name: str
    text: str
    is_test: bool
    is_held_out: bool


def standard_library_sources(root: Path | None = None) -> list[SourceFile]:
    """Every readable source file of the running Python's library, in a fixed order."""
    root = root or Path(sysconfig.get_path("stdlib"))
    return list(_read_sources(root))


def _read_sources(root: Path) -> Iterator[SourceFile]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if SKIPPED_FOLDERS.intersection(parts):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
            continue
        name = "/".join(parts)
        # A hash of the name, so that a file keeps its side whatever other files exist.
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        yield SourceFile(name, text, bool(TEST_FOLDERS.intersection(parts)), digest % HELD_OUT_SHARE == 0)


def train_tokenizer(sources: list[SourceFile], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of ``vocab_size`` entries, trained on the library part of the training files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_merge_sample(sources), trainer)
    return tokenizer


def _merge_sample(sources: list[SourceFile]) -> Iterator[str]:
    num_characters = 0
    for source in sources:
        if source.is_held_out or source.is_test:
            continue
        num_characters += len(source.text)
        if num_characters > MERGE_SAMPLE_CHARACTERS:
            return
        yield source.text


def encode_stream(tokenizer: Tokenizer, sources: list[SourceFile]) -> np.ndarray:
    """All files as one stream of int32 token ids, each between BOS and EOS."""
    encodings = tokenizer.encode_batch_fast([source.text for source in sources], add_special_tokens=False)
    pieces = [np.array([BOS_TOKEN_ID, *encoding.ids, EOS_TOKEN_ID], dtype=np.int32) for encoding in encodings]
    return np.concatenate(pieces)


@dataclass(frozen=True)
class TokenStreams:
    """Token ids of the corpus by part; rows are windows at random offsets."""

    library: np.ndarray
    tests: np.ndarray
    held_out: np.ndarray

    @classmethod
    def encode(cls, tokenizer: Tokenizer, sources: list[SourceFile]) -> TokenStreams:
        """Split ``sources`` into the three parts and encode each."""
        parts: dict[str, list[SourceFile]] = {"library": [], "tests": [], "held_out": []}
        for source in sources:
            parts["held_out" if source.is_held_out else "tests" if source.is_test else "library"].append(source)
        return cls(**{part: encode_stream(tokenizer, files) for part, files in parts.items()})

    def training_rows(self, rng: np.random.Generator, num_rows: int, length: int, library_share: float) -> np.ndarray:
        """``[num_rows, length]`` windows; each row is from the library with probability ``library_share``."""
        rows = np.empty((num_rows, length), dtype=np.int64)
        for row in rows:
            stream = self.library if rng.random() < library_share else self.tests
            start = rng.integers(0, len(stream) - length)
            row[:] = stream[start : start + length]
        return rows

    def held_out_rows(self, num_rows: int, length: int) -> np.ndarray:
        """``[num_rows, length]`` evenly spaced windows of text that no model has seen."""
        starts = np.linspace(0, len(self.held_out) - length, num_rows).astype(int)
        return np.stack([self.held_out[start : start + length] for start in starts]).astype(np.int64)
