"""Optimisation of a small network: float32 master weights, a bfloat16 working copy, Muon for matrices."""

from __future__ import annotations

import copy

import torch
from torch import nn

from treespec.tuning.recipes import Phase

CLIP_NORM = 1.0
WARM_UP_SHARE = 0.02
MUON_RATE, EMBEDDING_RATE, VECTOR_RATE = 0.02, 0.01, 0.003


class MasterWeights:
    """Keeps a float32 network and trains it through a bfloat16 copy of it.

    Forward and backward run on ``working``; the step is taken on ``master``. On CPUs with bfloat16 instructions
    this avoids what autocast does, casting every weight again at each use.
    """

    def __init__(self, master: nn.Module, phase: Phase) -> None:
        self.master = master
        self.working = copy.deepcopy(master).to(torch.bfloat16)
        self.phase = phase
        pairs = list(zip(master.parameters(), self.working.parameters(), strict=True))
        self._pairs = pairs
        embeddings = {id(module.weight) for module in master.modules() if isinstance(module, nn.Embedding)}
        embeddings |= {id(p) for name, p in master.named_parameters() if name == "lm_head.weight"}  # an untied head
        matrices = [p for p, _ in pairs if p.ndim == 2 and id(p) not in embeddings]
        tables = [p for p, _ in pairs if id(p) in embeddings]
        vectors = [p for p, _ in pairs if p.ndim < 2]
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, ns_steps=4, weight_decay=0.05),
            torch.optim.AdamW(
                [
                    {"params": tables, "lr": EMBEDDING_RATE, "weight_decay": 0.0},
                    {"params": vectors, "lr": VECTOR_RATE, "weight_decay": 0.0},
                ],
                betas=(0.9, 0.95),
            ),
        ]
        self._base_rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self._optimisers]

    def step(self, loss: torch.Tensor, step: int) -> None:
        """Back-propagate ``loss`` (of the working copy) and move the master weights."""
        loss.backward()
        for master, working in self._pairs:
            assert working.grad is not None, "a parameter took no part in the loss"
            master.grad = working.grad.float()
            working.grad = None
        nn.utils.clip_grad_norm_([p for p, _ in self._pairs], CLIP_NORM)
        share = learning_rate_share(self.phase, step)
        for optimiser, rates in zip(self._optimisers, self._base_rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for master, working in self._pairs:
                working.copy_(master)


def learning_rate_share(phase: Phase, step: int) -> float:
    """Warm-up, flat, then linear down to ``final_rate``, by step count (so that a rerun repeats it)."""
    warm_up = max(1, round(WARM_UP_SHARE * phase.num_steps))
    if step < warm_up:
        return phase.peak_rate * (step + 1) / warm_up
    flat_end = max(warm_up, round(phase.flat_share * phase.num_steps))
    if step < flat_end:
        return phase.peak_rate
    progress = (step - flat_end) / max(1, phase.num_steps - flat_end)
    return phase.peak_rate + (phase.final_rate - phase.peak_rate) * progress
