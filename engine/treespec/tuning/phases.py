"""The training phases of a pair: cross-entropy, anti-repetition (unlikelihood), distillation.

Unlikelihood follows Welleck et al. 2020 (sequence level): tokens of the model's own greedy text that complete an
n-gram seen before are pushed down. Lower loss alone does not cure greedy loops of a small model; this does, partly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from treespec.tuning.corpus import TokenStreams
from treespec.tuning.optimisers import MasterWeights
from treespec.tuning.recipes import Phase, Recipe

CONTINUATION_TOKENS = 128
PREFIX_TOKENS = (16, 32, 48)
UNLIKELIHOOD_ROWS = 28
VALIDATION_ROWS, VALIDATION_LENGTH = 64, 257
LOG_EVERY = 50

Log = Callable[[str], None]


@dataclass(frozen=True)
class PhaseLog:
    """What a phase cost and where it ended, for the model card."""

    phase: str
    num_steps: int
    wall_s: float
    cpu_s: float
    curve: list[dict[str, float]]


@torch.no_grad()
def held_out_loss(network: nn.Module, streams: TokenStreams) -> float:
    """Mean next-token cross-entropy (nats) on 64 held-out windows of 256 predictions, in float32."""
    rows = torch.from_numpy(streams.held_out_rows(VALIDATION_ROWS, VALIDATION_LENGTH))
    losses = [_cross_entropy(network, chunk).item() for chunk in rows.split(16)]
    return float(np.mean(losses))


def _cross_entropy(network: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    logits = network(input_ids=rows[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def _run(
    name: str,
    network: nn.Module,
    phase: Phase,
    loss_at: Callable[[nn.Module, int], torch.Tensor],
    streams: TokenStreams,
    log: Log,
) -> PhaseLog:
    weights = MasterWeights(network, phase)
    started, cpu_started = time.monotonic(), time.process_time()
    curve: list[dict[str, float]] = []
    for step in range(phase.num_steps):
        loss = loss_at(weights.working, step)
        weights.step(loss, step)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == phase.num_steps:
            point = {"step": step + 1, "loss": float(loss.detach()), "wall_s": round(time.monotonic() - started, 1)}
            if (step + 1) % (4 * LOG_EVERY) == 0 or step + 1 == phase.num_steps:
                point["held_out_loss"] = held_out_loss(network, streams)
            curve.append(point)
            log(f"{name}: {point}")
    return PhaseLog(name, phase.num_steps, time.monotonic() - started, time.process_time() - cpu_started, curve)


def _batches(recipe: Recipe, phase: Phase, streams: TokenStreams, salt: int) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng([recipe.seed, salt])
    long_from = round(phase.num_steps * (1.0 - phase.long_share))
    for step in range(phase.num_steps):
        factor = 2 if phase.long_share and step >= long_from else 1
        rows = streams.training_rows(rng, phase.num_rows // factor, phase.row_length * factor, recipe.library_share)
        yield torch.from_numpy(rows)


def train_cross_entropy(
    name: str, network: nn.Module, recipe: Recipe, phase: Phase, streams: TokenStreams, log: Log, salt: int
) -> PhaseLog:
    """Ordinary language modelling on the corpus."""
    batches = _batches(recipe, phase, streams, salt)
    compiled = torch.compile(_cross_entropy, dynamic=False)
    return _run(name, network, phase, lambda model, _: compiled(model, next(batches)), streams, log)


def repeated_ngram_mask(rows: torch.Tensor, first: int, ngram: int) -> torch.Tensor:
    """True where token t >= ``first`` completes an n-gram seen earlier in its row; bool ``[B, T - first]``."""
    mask = torch.zeros(rows.shape[0], rows.shape[1] - first, dtype=torch.bool)
    for index, row in enumerate(rows.tolist()):
        seen: set[tuple[int, ...]] = set()
        for end in range(ngram, len(row) + 1):
            gram = tuple(row[end - ngram : end])
            if gram in seen and end > first:
                mask[index, end - 1 - first] = True
            seen.add(gram)
    return mask


@torch.no_grad()
def greedy_continuations(network: nn.Module, prefixes: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """``[B, prefix + num_tokens]``: prefixes and their greedy continuations (EOS does not stop them)."""
    network.generation_config.eos_token_id = None  # type: ignore[union-attr]
    return network.generate(  # type: ignore[operator, no-any-return]
        prefixes,
        attention_mask=torch.ones_like(prefixes),
        do_sample=False,
        max_new_tokens=num_tokens,
    )


def train_unlikelihood(network: nn.Module, recipe: Recipe, streams: TokenStreams, log: Log, salt: int) -> PhaseLog:
    """Push down greedy repetitions while the corpus loss holds the language in place."""
    phase = recipe.target_unlikelihood
    rng = np.random.default_rng([recipe.seed, salt])
    batches = _batches(recipe, phase, streams, salt + 1)

    def loss_at(model: nn.Module, _: int) -> torch.Tensor:
        prefix = int(rng.choice(PREFIX_TOKENS))
        prefixes = torch.from_numpy(streams.training_rows(rng, UNLIKELIHOOD_ROWS, prefix, recipe.library_share))
        rows = greedy_continuations(model, prefixes, CONTINUATION_TOKENS)
        repeated = repeated_ngram_mask(rows, prefix, recipe.repeated_ngram)
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        log_p = F.log_softmax(logits[:, prefix - 1 :].float(), dim=-1)
        token_p = log_p.gather(-1, rows[:, prefix:, None]).squeeze(-1).exp()
        penalty = -torch.log1p(-token_p.clamp(max=1 - 1e-4))
        unlikelihood = (penalty * repeated).sum() / repeated.numel()
        return _cross_entropy(model, next(batches)) + recipe.unlikelihood_weight * unlikelihood

    return _run("target unlikelihood", network, phase, loss_at, streams, log)


def own_text(target: nn.Module, recipe: Recipe, streams: TokenStreams, salt: int, log: Log) -> torch.Tensor:
    """``[own_text_rows, 160]``: training prefixes of 32 tokens with the target's greedy continuation."""
    rng = np.random.default_rng([recipe.seed, salt])
    prefixes = torch.from_numpy(streams.training_rows(rng, recipe.own_text_rows, 32, recipe.library_share))
    rows = []
    for index, chunk in enumerate(prefixes.split(64)):
        rows.append(greedy_continuations(target, chunk, CONTINUATION_TOKENS))
        if index % 8 == 0:
            log(f"own text: {64 * (index + 1)} of {recipe.own_text_rows} rows")
    return torch.cat(rows)


def train_distillation(
    draft: nn.Module, target: nn.Module, recipe: Recipe, streams: TokenStreams, log: Log, salt: int
) -> PhaseLog:
    """KL(target || draft), every second batch on the target's own greedy text."""
    phase = recipe.draft_distil
    target = target.to(torch.bfloat16).eval()
    rows = own_text(target, recipe, streams, salt, log)
    rng = np.random.default_rng([recipe.seed, salt + 1])
    batches = _batches(recipe, phase, streams, salt + 2)

    def divergence(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            teacher = F.log_softmax(target(input_ids=ids, use_cache=False).logits.float(), dim=-1)
        student = F.log_softmax(model(input_ids=ids, use_cache=False).logits.float(), dim=-1)
        return F.kl_div(student.flatten(0, 1), teacher.flatten(0, 1), log_target=True, reduction="batchmean")

    compiled = torch.compile(divergence, dynamic=False)

    def loss_at(model: nn.Module, step: int) -> torch.Tensor:
        if step % 2:
            chosen = rng.choice(len(rows), size=24, replace=False)
            return compiled(model, rows[torch.from_numpy(chosen)])
        return compiled(model, next(batches))

    return _run("draft distillation", draft, phase, loss_at, streams, log)
