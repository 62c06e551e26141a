"""Sliding windows: layers in which a token sees only the last positions (Mistral 7B, Jiang et al. 2023).

Legend: B requests, N new tokens, K key slots.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from treespec.model.decoder import ForwardBatch


def in_window(batch: ForwardBatch, window: int, dtype: torch.dtype) -> ForwardBatch:
    """The batch as those layers see it: keys less than ``window`` positions back, the token itself among them.

    What a token sees is its own root path in the order of its slots, from position 0 on: how many of these keys follow
    one is the difference of their positions. This holds for context, chunks of a prompt and trees alike.
    """
    if batch.num_keys <= window:
        return batch
    bias_BNK = batch.bias_BNK
    if bias_BNK is None:  # all K keys are one root path
        bias_BNK = batch.ids_BN.new_zeros((*batch.ids_BN.shape, batch.num_keys), dtype=dtype)
    seen_BNK = bias_BNK == 0
    place_BNK = seen_BNK.cumsum(dim=-1, dtype=torch.int32)
    return replace(batch, bias_BNK=bias_BNK.masked_fill(place_BNK[:, :, -1:] - place_BNK >= window, -torch.inf))
