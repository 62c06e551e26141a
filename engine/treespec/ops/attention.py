"""Attention of new tokens over a request's slots, under any visibility.

Legend: B requests, N new tokens, K key slots, H query heads, G key/value heads, D head size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def tree_attention(q_BNHD: Tensor, k_BKGD: Tensor, v_BKGD: Tensor, bias_BNK: Tensor | None) -> Tensor:
    """``[B, N, H, D]``: one kernel for a whole tree (SpecInfer, definition 4.1), a chunk of a prompt or one token.

    ``bias_BNK`` is 0 where a token sees a slot and -inf elsewhere; None lets every token see all K slots.
    Grouped queries are folded into the token axis, so that keys and values are never repeated.
    """
    B, N, H, D = q_BNHD.shape
    G = k_BKGD.shape[2]
    R = H // G
    q = q_BNHD.view(B, N, G, R, D).permute(0, 2, 3, 1, 4).reshape(B, G, R * N, D) if R > 1 else q_BNHD.transpose(1, 2)
    bias = None if bias_BNK is None else bias_BNK.unsqueeze(1)
    if bias is not None and R > 1:
        bias = bias.repeat(1, 1, R, 1)
    out = F.scaled_dot_product_attention(q, k_BKGD.transpose(1, 2), v_BKGD.transpose(1, 2), attn_mask=bias)
    return out.view(B, G, R, N, D).permute(0, 3, 1, 2, 4).reshape(B, N, H, D) if R > 1 else out.transpose(1, 2)
