"""Fine-tune one draft on the samples that no earlier draft knows.

Legend: R prompts, T tokens of a continuation, S samples of a continuation, B prompts of a batch, V vocabulary, K kept
tokens of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from treespec.tuning.boost.samples import Continuations, continuation_logits
from treespec.tuning.boost.settings import BoostSettings
from treespec.tuning.optimisers import MUON_RATE, MasterWeights
from treespec.tuning.phases import LOG_EVERY, Log, PhaseLog
from treespec.tuning.recipes import Phase

FINAL_SHARE, FLAT_SHARE = 0.05, 0.3  # of the peak rate at the last step; of the steps at the peak rate


def fine_tune(
    draft: nn.Module,
    target: nn.Module | None,
    continuations: Continuations,
    kept_RS: np.ndarray,
    settings: BoostSettings,
    number: int,
    log: Log,
) -> PhaseLog:
    """Train ``draft`` in place on the kept samples; ``target`` gives the distributions where the loss wants them."""
    peak = settings.learning_rate / MUON_RATE
    row_length = continuations.tokens_RT.shape[1]
    phase = Phase(settings.num_steps, peak, FINAL_SHARE * peak, FLAT_SHARE, settings.batch_rows, row_length)
    weights = MasterWeights(draft, phase)
    kept_RT = kept_RS.repeat(settings.sample_tokens, axis=1) & continuations.live_RT
    rng = np.random.default_rng([settings.seed, 2, number])
    batches = _batches(np.flatnonzero(kept_RS.any(axis=1)), settings.batch_rows, rng)
    started, cpu_started = time.monotonic(), time.process_time()
    curve: list[dict[str, float]] = []
    for step in range(settings.num_steps):
        loss = kept_loss(weights.working, target, continuations, next(batches), kept_RT)
        weights.step(loss, step)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == settings.num_steps:
            curve.append({"step": step + 1, "loss": float(loss.detach())})
            log(f"draft {number}: {curve[-1]}")
    wall, cpu = time.monotonic() - started, time.process_time() - cpu_started
    return PhaseLog(f"draft {number}", settings.num_steps, wall, cpu, curve)


def kept_loss(
    draft: nn.Module, target: nn.Module | None, continuations: Continuations, rows: np.ndarray, kept_RT: np.ndarray
) -> Tensor:
    """Mean over the kept tokens of KL(target || draft), or of their cross-entropy without a target; a scalar, nats."""
    ids_BC, predicting_BT = continuations.rows(rows.tolist())
    kept_BT = torch.from_numpy(kept_RT[rows])
    logits_KV = continuation_logits(draft, ids_BC, predicting_BT)[kept_BT]
    if target is None:
        tokens_K = torch.from_numpy(continuations.tokens_RT[rows])[kept_BT]
        return F.cross_entropy(logits_KV, tokens_K.to(logits_KV.device))
    with torch.no_grad():
        teacher_KV = F.log_softmax(continuation_logits(target, ids_BC, predicting_BT)[kept_BT], dim=-1)
    return F.kl_div(F.log_softmax(logits_KV, dim=-1), teacher_KV, log_target=True, reduction="batchmean")


def _batches(rows: np.ndarray, batch_rows: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of row indices; every row comes once before any comes again."""
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_rows:
            waiting = np.concatenate([waiting, rng.permutation(rows)])
        yield waiting[:batch_rows]
        waiting = waiting[batch_rows:]
