"""Prompt files and the check that every prompt can be served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from treespec.config import Scenario
from treespec.errors import InputFileError, PromptError
from treespec.model.tokenizer import TextTokenizer


def load_prompts(scenario: Scenario, tokenizer: TextTokenizer, max_sequence_length: int) -> list[list[int]]:
    """Token ids of the scenario's prompts, in file order. Raises InputFileError or PromptError, naming indices."""
    texts = read_prompt_file(scenario.prompts)
    if scenario.num_prompts is not None:
        if scenario.num_prompts > len(texts):
            raise PromptError(
                "the prompt file is too short",
                where=str(scenario.prompts),
                received=f"num_prompts {scenario.num_prompts}",
                allowed=f"at most {len(texts)}",
            )
        texts = texts[: scenario.num_prompts]
    prompts = encode_prompts(texts, tokenizer, str(scenario.prompts))
    _require_room(prompts, str(scenario.prompts), max_sequence_length)
    return prompts


def encode_prompts(texts: Sequence[str], tokenizer: TextTokenizer, where: str) -> list[list[int]]:
    """Token ids per text. Raises PromptError for texts without any token."""
    prompts = [tokenizer.encode(text) for text in texts]
    empty = [index for index, ids in enumerate(prompts) if not ids]
    if empty:
        raise PromptError("prompts without any token", where=where, received=f"indices {empty}")
    return prompts


def read_prompt_file(path: Path) -> list[str]:
    """A JSON list of strings, as the artifact's prompt files are."""
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputFileError("prompt file cannot be read", where=str(path), received=error.strerror) from error
    except ValueError as error:
        raise InputFileError("prompt file is not valid JSON", where=str(path), received=str(error)) from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputFileError("prompt file is of another form", where=str(path), allowed="a JSON list of strings")
    if not texts:
        raise InputFileError("prompt file is empty", where=str(path), allowed="at least one prompt")
    return texts


def _require_room(prompts: list[list[int]], where: str, max_sequence_length: int) -> None:
    long = {index: len(ids) for index, ids in enumerate(prompts) if len(ids) >= max_sequence_length}
    if long:
        raise PromptError(
            "prompts are longer than the cache",
            where=where,
            received=", ".join(f"prompt {index}: {count} tokens" for index, count in long.items()),
            allowed=f"at most {max_sequence_length - 1} tokens, below max_sequence_length",
            fix="shorten them or raise max_sequence_length",
        )
