"""The target's greedy continuations of prompts, kept on disk while they are made, and which samples a draft knows.

Legend: R prompts, T tokens of a continuation, C longest prompt with its continuation, V vocabulary, S samples of a
continuation, B prompts of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from treespec.errors import OutputError
from treespec.files import write_atomically
from treespec.tuning.boost.settings import digest
from treespec.tuning.phases import Log, greedy_continuations

GENERATED_TOGETHER, RANKED_TOGETHER = 128, 16
PAD_TOKEN_ID = 0  # behind a row's last token, where no earlier position sees it


@dataclass(frozen=True)
class Continuations:
    """Prompts, each with the same number of tokens that the target continues it with."""

    prompts: tuple[tuple[int, ...], ...]
    tokens_RT: np.ndarray  # int64
    live_RT: np.ndarray  # bool: up to the first end-of-text token, itself included

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Token ids int64 ``[B, C]``, padded behind, and the position that predicts each token int64 ``[B, T]``."""
        num_tokens = self.tokens_RT.shape[1]
        lengths = [len(self.prompts[index]) for index in indices]
        ids_BC = np.full((len(indices), max(lengths) + num_tokens), PAD_TOKEN_ID, dtype=np.int64)
        for row, index, length in zip(ids_BC, indices, lengths, strict=True):
            row[: length + num_tokens] = [*self.prompts[index], *self.tokens_RT[index]]
        predicting_BT = torch.tensor(lengths)[:, None] - 1 + torch.arange(num_tokens)
        return torch.from_numpy(ids_BC), predicting_BT

    def live_tokens(self, index: int) -> list[int]:
        """The continuation of one prompt up to its end."""
        tokens: list[int] = self.tokens_RT[index, self.live_RT[index]].tolist()
        return tokens


def continue_prompts(
    load_target: Callable[[], nn.Module],
    target_identity: str,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    eos_token_ids: Sequence[int],
    folder: Path,
    log: Log,
) -> Continuations:
    """Greedy continuations; prompts of equal length run together, and every finished batch is a file in ``folder``.

    Generation does not stop at ``eos_token_ids``, but nothing behind the first of them is live. ``load_target`` is
    called only if something is missing; a killed run goes on with the next batch. Raises OutputError.
    """
    identity = digest([target_identity, [list(ids) for ids in prompts], num_tokens])
    cache = folder / f"continuations-{identity[:12]}"
    _make_folder(cache)
    tokens_RT = np.zeros((len(prompts), num_tokens), dtype=np.int64)
    batches = _batches_of_equal_length(prompts)
    for number, indices in enumerate(batches):
        path = cache / f"{number:05d}.json"
        if not path.exists():
            target = load_target()
            ids_BC = torch.tensor([list(prompts[index]) for index in indices], device=_device(target))
            grown_BC = greedy_continuations(target, ids_BC, num_tokens)
            write_atomically(path, json.dumps(grown_BC[:, ids_BC.shape[1] :].tolist()))
            log(f"continuations: batch {number + 1} of {len(batches)}")
        tokens_RT[indices] = json.loads(path.read_text(encoding="utf-8"))
    is_end_RT = np.isin(tokens_RT, list(eos_token_ids))
    num_ends_before_RT: np.ndarray = np.cumsum(is_end_RT, axis=1) - is_end_RT
    return Continuations(tuple(tuple(ids) for ids in prompts), tokens_RT, np.equal(num_ends_before_RT, 0))


@torch.no_grad()
def token_ranks(draft: nn.Module, continuations: Continuations) -> np.ndarray:
    """Rank (1 = likeliest) that the draft gives each token of the target's text, int64 ``[R, T]``."""
    ranks = []
    for start in range(0, len(continuations), RANKED_TOGETHER):
        indices = range(start, min(start + RANKED_TOGETHER, len(continuations)))
        ids_BC, predicting_BT = continuations.rows(indices)
        logits_BTV = continuation_logits(draft, ids_BC, predicting_BT)
        tokens_BT = torch.from_numpy(continuations.tokens_RT[indices.start : indices.stop]).to(logits_BTV.device)
        chosen_BT1 = logits_BTV.gather(-1, tokens_BT[..., None])
        ranks.append(((logits_BTV > chosen_BT1).sum(-1) + 1).cpu().numpy())
    return np.concatenate(ranks)


def continuation_logits(network: nn.Module, ids_BC: Tensor, predicting_BT: Tensor) -> Tensor:
    """Logits of every continuation token, float32 ``[B, T, V]``."""
    ids_BC = ids_BC.to(_device(network))
    logits_BCV = network(input_ids=ids_BC[:, :-1], use_cache=False).logits
    rows_B1 = torch.arange(len(ids_BC))[:, None]
    logits_BTV: Tensor = logits_BCV[rows_B1, predicting_BT].float()
    return logits_BTV


def real_samples(continuations: Continuations, sample_tokens: int) -> np.ndarray:
    """Which samples begin before the end of the text, bool ``[R, S]``."""
    starts_RS: np.ndarray = continuations.live_RT[:, ::sample_tokens]
    return starts_RS


def matched_samples(
    draft: nn.Module, continuations: Continuations, sample_tokens: int, match_tokens: int
) -> np.ndarray:
    """Which samples the draft, left to itself, begins with the target's first ``match_tokens`` tokens, bool ``[R, S]``.

    A greedy continuation equals given tokens exactly if each of them is the likeliest behind the ones before it, so no
    text need be generated. Tokens behind the end of the text count as equal.
    """
    equal_RT = (token_ranks(draft, continuations) == 1) | ~continuations.live_RT
    equal_RSM = equal_RT.reshape(len(continuations), -1, sample_tokens)[..., :match_tokens]
    matched_RS: np.ndarray = equal_RSM.all(-1)
    return matched_RS


def _batches_of_equal_length(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        by_length.setdefault(len(ids), []).append(index)
    step = GENERATED_TOGETHER
    return [
        indices[start : start + step]
        for _, indices in sorted(by_length.items())
        for start in range(0, len(indices), step)
    ]


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("folder cannot be made", where=str(folder), received=error.strerror) from error
