"""How often a draft's likeliest tokens hold the target's, along the target's own text.

Every token is decoded by both models, one at a time for a batch of requests; nothing is speculated. What speculation
saves with any fixed tree then follows from the ranks.

Legend: B requests, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from treespec.kvcache.pool import CacheShape, KVCachePool
from treespec.model.decoder import Decoder, ForwardBatch
from treespec.model.synthetic.shapes import MIN_VOCABULARY

MAX_RANK = 5
LOOP_NGRAM = 4


@dataclass(frozen=True)
class Trajectories:
    """Seeded random prompts, how they are continued, and how many tokens of each count."""

    num_requests: int = 32
    prompt_tokens: int = 8
    num_tokens: int = 64
    is_sampled: bool = False  # at temperature 1 from the whole distribution; otherwise greedy
    seed: int = 0

    def prompts(self, vocab_size: int) -> Tensor:
        """int64 ``[B, T]``, no special tokens."""
        draw = torch.Generator().manual_seed(self.seed)
        lowest = MIN_VOCABULARY if vocab_size > 2 * MIN_VOCABULARY else vocab_size // 2
        return torch.randint(lowest, vocab_size, (self.num_requests, self.prompt_tokens), generator=draw)


@dataclass(frozen=True)
class Measured:
    """What was found: the shares of tokens among the draft's k likeliest, k = 1..5, and what the text is like."""

    top_k: tuple[float, ...]
    num_tokens: int
    mean_entropy: float  # nats, of the target's distributions
    distinct: float  # distinct 4-grams over all

    def furthest(self, wanted: Sequence[float]) -> float:
        """Largest distance from these shares, the first of the five."""
        return max(abs(found - share) for found, share in zip(self.top_k, wanted, strict=False))


class _Stepper:
    """One token per request and call, everything before it in the cache."""

    def __init__(self, decoder: Decoder, num_requests: int, capacity: int) -> None:
        spec = decoder.spec
        shape = CacheShape(spec.num_layers, spec.num_kv_heads, spec.head_dim, num_requests, capacity)
        self._decoder, self._capacity = decoder, capacity
        self._pool = KVCachePool(shape, decoder.dtype, decoder.device)

    def logits(self, ids_B: Tensor, position: int) -> Tensor:
        """``[B, V]`` float32 on the CPU."""
        B, device = len(ids_B), self._decoder.device
        batch = ForwardBatch(
            ids_BN=ids_B[:, None].to(device),
            positions_BN=torch.full((B, 1), position, device=device),
            slots_T=torch.arange(B, device=device) * self._capacity + position,
            regions=slice(0, B),
            num_keys=position + 1,
            bias_BNK=None,
            logit_rows=None,
        )
        return self._decoder.forward(batch, self._pool).rows.float().cpu()


@torch.inference_mode()
def measure(target: Decoder, draft: Decoder, settings: Trajectories) -> Measured:
    """Continue the prompts with the target; of each of its distributions, count what the draft's likeliest hold.

    Sampled continuations count probabilities and not the tokens drawn: the same on average, with less scatter.
    """
    prompts_BT = settings.prompts(target.spec.vocab_size)
    B, capacity = settings.num_requests, settings.prompt_tokens + settings.num_tokens
    steppers = [_Stepper(decoder, B, capacity) for decoder in (target, draft)]
    draw = torch.Generator().manual_seed(settings.seed)
    held, entropies, text = [], [], []
    ids_B = prompts_BT[:, 0]
    for position in range(capacity - 1):
        theirs_BV, ours_BV = (stepper.logits(ids_B, position) for stepper in steppers)
        if position + 1 < settings.prompt_tokens:
            ids_B = prompts_BT[:, position + 1]
            continue
        log_p_BV = theirs_BV.log_softmax(-1)
        entropies.append(-(log_p_BV.exp() * log_p_BV).sum(-1))
        p_BV = log_p_BV.exp() if settings.is_sampled else F.one_hot(log_p_BV.argmax(-1), log_p_BV.shape[-1]).float()
        held.append(p_BV.gather(1, ours_BV.topk(MAX_RANK).indices).cumsum(-1))
        ids_B = torch.multinomial(p_BV, 1, generator=draw)[:, 0]
        text.append(ids_B)
    held_NK = torch.cat(held)
    return Measured(
        top_k=tuple(held_NK.double().mean(0).tolist()),
        num_tokens=len(held_NK),
        mean_entropy=float(torch.cat(entropies).mean()),
        distinct=_distinct(torch.stack(text, dim=1).numpy()),
    )


def _distinct(text_BT: np.ndarray) -> float:
    grams = [tuple(row[start : start + LOOP_NGRAM]) for row in text_BT for start in range(len(row) - LOOP_NGRAM + 1)]
    return len(set(grams)) / len(grams)
