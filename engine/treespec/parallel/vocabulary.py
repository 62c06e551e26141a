"""From the vocabulary shares of a stage's ranks to what was asked of them, on the driver.

Legend: R rows whose result is wanted, V vocabulary, P ranks of the stage.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from treespec.parallel.collectives import Collectives
from treespec.parallel.mesh import ParallelMesh

CANDIDATE_DTYPE = torch.float64
"""Holds every logit and every token id exactly, so that both travel in one message."""


def whole_logits(part_RV: Tensor, vocab_size: int, mesh: ParallelMesh, collectives: Collectives) -> Tensor:
    """All shares side by side, ``[R, V]``; on ranks that do not drive ``[0, V]``.

    Shares differ by one entry where the vocabulary cannot be divided: the shorter ones are padded for the way.
    """
    if part_RV.shape[1] == vocab_size:
        return part_RV
    padding = mesh.largest_share(vocab_size) - part_RV.shape[1]
    parts = collectives.gather(F.pad(part_RV, (0, padding)) if padding else part_RV) if len(part_RV) else []
    if not parts:
        return part_RV.new_empty(0, vocab_size)
    sizes = [len(share) for share in mesh.shares(vocab_size)]
    return torch.cat([part[:, :size] for part, size in zip(parts, sizes, strict=True)], dim=1)


def likeliest(part_RV: Tensor, vocab_size: int, mesh: ParallelMesh, collectives: Collectives) -> Tensor:
    """The token of largest logit per row, int64 ``[R]``, the lowest of equals; on ranks that do not drive ``[0]``.

    Each rank hands in the largest logit of its share and where it is: 2 numbers per row instead of its share.
    """
    tokens_R = part_RV.argmax(dim=-1)
    if part_RV.shape[1] == vocab_size:
        return tokens_R
    values_R = part_RV.gather(-1, tokens_R.unsqueeze(-1)).squeeze(-1)
    first = mesh.share(vocab_size).start
    candidates_R2 = torch.stack([values_R.to(CANDIDATE_DTYPE), (tokens_R + first).to(CANDIDATE_DTYPE)], dim=-1)
    parts = collectives.gather(candidates_R2) if len(part_RV) else []
    if not parts:
        return tokens_R.new_empty(0)
    candidates_PR2 = torch.stack(parts)
    # argmax takes the first of equals: the lowest rank, which holds the lower tokens.
    winners_R = candidates_PR2[:, :, 0].argmax(dim=0, keepdim=True)
    return candidates_PR2[:, :, 1].gather(0, winners_R).squeeze(0).to(torch.int64)
