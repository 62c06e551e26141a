"""Prompts as token ids, and the check that every one of them can be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from treespec.config import Scenario
from treespec.config.run import FILL_BATCH, UNFILLED_BATCH
from treespec.errors import ConfigError, PromptError
from treespec.log import say
from treespec.model.tokenizers.text import TextTokenizer
from treespec.prompts import Prompt, read_prompts


@dataclass(frozen=True)
class LoadedPrompts:
    """The prompts of a scenario, in file order."""

    token_ids: list[list[int]]
    categories: list[str | None]  # as the file has them


def load_prompts(scenario: Scenario, tokenizer: TextTokenizer, max_sequence_length: int) -> list[list[int]]:
    """Token ids of the scenario's prompts, in file order. Raises TreespecError, naming indices."""
    return load_all_prompts([scenario], tokenizer, max_sequence_length)[scenario.name].token_ids


def load_all_prompts(
    scenarios: Sequence[Scenario], tokenizer: TextTokenizer, max_sequence_length: int
) -> dict[str, LoadedPrompts]:
    """The same for several scenarios, by name, with categories; what there is to say of a file is said once."""
    remarks: list[str] = []
    loaded = {}
    for scenario in scenarios:
        prompts = _first_prompts(scenario)
        remarks += _remark_on_turns(prompts, scenario.prompts)
        token_ids = _encode(prompts, tokenizer, str(scenario.prompts))
        _require_room(token_ids, str(scenario.prompts), max_sequence_length)
        remarks += _remark_on_room(token_ids, scenario, max_sequence_length)
        loaded[scenario.name] = LoadedPrompts(token_ids, [prompt.category for prompt in prompts])
    for remark in dict.fromkeys(remarks):
        say(remark)
    return loaded


def require_prompts(scenarios: Sequence[Scenario]) -> None:
    """Read the scenarios' prompt files and count. Raises as ``load_all_prompts``, but needs no tokenizer."""
    for scenario in scenarios:
        _first_prompts(scenario)


def encode_prompts(texts: Sequence[str], tokenizer: TextTokenizer, where: str) -> list[list[int]]:
    """Token ids per text. Raises PromptError for texts without any token."""
    prompts = [tokenizer.encode(text) for text in texts]
    _refuse_empty([index for index, ids in enumerate(prompts) if not ids], where)
    return prompts


def read_prompt_file(path: Path) -> list[str]:
    """The texts of a prompt file; what of it is not used is said."""
    prompts = read_prompts(path)
    for remark in _remark_on_turns(prompts, path):
        say(remark)
    return [prompt.text for prompt in prompts]


def _first_prompts(scenario: Scenario) -> Sequence[Prompt]:
    prompts = read_prompts(scenario.prompts)
    if scenario.num_prompts is not None and scenario.num_prompts > len(prompts):
        raise PromptError(
            "the prompt file is too short",
            where=str(scenario.prompts),
            received=f"num_prompts {scenario.num_prompts}",
            allowed=f"at most {len(prompts)}",
        )
    prompts = prompts[: scenario.num_prompts]
    if len(prompts) < scenario.num_prompts_needed:
        raise ConfigError(
            f"scenario {scenario.name!r}: {UNFILLED_BATCH}",
            where=str(scenario.prompts),
            received=f"{len(prompts)} prompts for max_requests_per_batch {scenario.max_requests_per_batch}",
            fix=FILL_BATCH,
        )
    return prompts


def _encode(prompts: Sequence[Prompt], tokenizer: TextTokenizer, where: str) -> list[list[int]]:
    token_ids = [tokenizer.encode(prompt.text) for prompt in prompts]
    # A tokenizer that begins every text makes a token of nothing, too.
    empty = [index for index, prompt in enumerate(prompts) if not prompt.text or not token_ids[index]]
    _refuse_empty(empty, where)
    return token_ids


def _refuse_empty(indices: list[int], where: str) -> None:
    if indices:
        raise PromptError("prompts without any token", where=where, received=f"indices {indices}")


def _require_room(prompts: list[list[int]], where: str, max_sequence_length: int) -> None:
    long = {index: len(ids) for index, ids in enumerate(prompts) if len(ids) >= max_sequence_length}
    if long:
        raise PromptError(
            "prompts are longer than the cache",
            where=where,
            received=listed_lengths(long),
            allowed=f"at most {max_sequence_length - 1} tokens, below max_sequence_length",
            fix="shorten them or raise max_sequence_length",
        )


def _remark_on_room(prompts: list[list[int]], scenario: Scenario, max_sequence_length: int) -> list[str]:
    """Prompts that are served, but to fewer tokens than were asked for."""
    room = max_sequence_length - scenario.max_new_tokens
    tight = {index: len(ids) for index, ids in enumerate(prompts) if len(ids) > room}
    if not tight:
        return []
    remark = (
        f"{scenario.prompts}: max_sequence_length {max_sequence_length} ends the outputs of some prompts before "
        f"max_new_tokens {scenario.max_new_tokens}, as they have more than {room} tokens: {listed_lengths(tight)}"
    )
    return [remark]


def _remark_on_turns(prompts: Sequence[Prompt], path: Path) -> list[str]:
    longer = [prompt.num_unused_turns for prompt in prompts if prompt.num_unused_turns]
    if not longer:
        return []
    where = f"in {len(longer)} of {len(prompts)} entries"
    return [f"{path}: the first turn is the prompt; later turns, which are not used: {sum(longer)} {where}"]


def listed_lengths(num_tokens: dict[int, int]) -> str:
    """Prompts by index with their lengths, for errors."""
    return ", ".join(f"prompt {index}: {count} tokens" for index, count in num_tokens.items())
