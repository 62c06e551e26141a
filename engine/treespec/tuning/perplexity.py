"""How well a decoder predicts texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from treespec.model.decoder import Decoder
from treespec.runner import ForwardRow, ModelRunner

TEXTS_AT_ONCE = 16


def perplexity(decoder: Decoder, texts: Sequence[Sequence[int]]) -> float:
    """exp of the mean negative log-likelihood of every token that follows another, over all texts together."""
    total, count = 0.0, 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = texts[start : start + TEXTS_AT_ONCE]
        runner = ModelRunner(decoder, len(batch), max(map(len, batch)))
        logits_RV = runner.result(runner.submit([_row(runner, text) for text in batch])).logits_RV
        log_p_RV = torch.log_softmax(logits_RV.double(), dim=-1)
        for text, log_p_NV in zip(batch, log_p_RV.split([len(text) for text in batch]), strict=True):
            following = torch.tensor(text[1:], device=log_p_NV.device)
            total -= float(log_p_NV[:-1].gather(-1, following[:, None]).sum())
            count += len(following)
    return math.exp(total / count)


def _row(runner: ModelRunner, text: Sequence[int]) -> ForwardRow:
    n = len(text)
    return ForwardRow(
        lease=runner.allocator.lease(runner.allocator.admit(), n),
        token_ids=np.asarray(text, dtype=np.int64),
        positions=np.arange(n, dtype=np.int64),
        visible=np.tri(n, dtype=bool),
        num_logits=n,
    )
