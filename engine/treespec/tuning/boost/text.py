"""Training prompts for boost-tuning: given ones, or windows of a text corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from treespec.errors import InputFileError, PromptError
from treespec.model.tokenizers.text import TextTokenizer
from treespec.tuning.corpus import standard_library_sources

CHARACTERS_PER_TOKEN = 8  # more than the tokens of ordinary text have, so that a window holds enough of them
TRIES_PER_WINDOW = 20


def given_prompts(texts: Sequence[str], tokenizer: TextTokenizer, num_tokens: int) -> list[list[int]]:
    """The first ``num_tokens`` tokens of every text, shorter ones whole. Raises PromptError for an empty one."""
    prompts = [tokenizer.encode(text)[:num_tokens] for text in texts]
    empty = [index for index, ids in enumerate(prompts) if not ids]
    if empty:
        raise PromptError("prompts without any token", received=f"indices {empty}")
    return prompts


def window_prompts(
    texts: Sequence[str], tokenizer: TextTokenizer, num_prompts: int, num_tokens: int, seed: int
) -> list[list[int]]:
    """``num_prompts`` windows of exactly ``num_tokens`` tokens from random lines on; a long text gives more of them.

    Raises InputFileError if the texts are too short.
    """
    rng = np.random.default_rng([seed, 1])
    shares = np.array([len(text) for text in texts], dtype=np.float64)
    windows: list[list[int]] = []
    for _ in range(TRIES_PER_WINDOW * num_prompts):
        if len(windows) == num_prompts or not shares.sum():
            break
        text = texts[rng.choice(len(texts), p=shares / shares.sum())]
        start = text.rfind("\n", 0, int(rng.integers(len(text)))) + 1
        ids = tokenizer.encode(text[start : start + CHARACTERS_PER_TOKEN * num_tokens])[:num_tokens]
        if len(ids) == num_tokens:
            windows.append(ids)
    if len(windows) < num_prompts:
        received = f"{len(texts)} texts of {int(shares.sum())} characters, {len(windows)} windows found"
        raise InputFileError(
            "the corpus is too short", received=received, allowed=f"lines followed by {num_tokens} tokens"
        )
    return windows


def read_corpus(paths: Sequence[Path]) -> list[str]:
    """The texts of files, and of every file below folders, in a fixed order. Raises InputFileError."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    texts = []
    for file in files:
        if file.is_dir():
            continue
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputFileError(
                "corpus file cannot be read", where=str(file), received=error, allowed="text in UTF-8"
            ) from error
    return texts


def library_corpus() -> list[str]:
    """The training part of the running Python's standard library, of which the embedded models know no other."""
    return [source.text for source in standard_library_sources() if not source.is_held_out]


def require_unseen(held_out: Sequence[Sequence[int]], training: Sequence[Sequence[int]]) -> None:
    """Refuse held-out prompts that are trained on. Raises PromptError naming their indices."""
    seen = {tuple(ids) for ids in training}
    leaked = [index for index, ids in enumerate(held_out) if tuple(ids) in seen]
    if leaked:
        raise PromptError(
            "held-out prompts are among the training prompts",
            received=f"indices {leaked[:10]}{' ...' if len(leaked) > 10 else ''}",
            fix="take other files for --held-out or for the training prompts",
        )
