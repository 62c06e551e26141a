"""A draft model whose tables are padded to another width than the target's, as wide as the target.

Published families pad the tables of one tokenizer differently (Qwen2.5: 151936 rows at 0.5B, 152064 at 7B).

Legend: R rows whose result is wanted, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import Decoder, ForwardBatch, ForwardOutput, Wanted
from treespec.model.loader import LoadedModel


class FittedDecoder:
    """A decoder with the vocabulary of another: what it lacks is never likely, what it has beyond is left out.

    Right for drafts alone: they may be conditioned on anything, as long as what they report is what they draw from.
    """

    def __init__(self, inner: Decoder, vocab_size: int) -> None:
        self._inner = inner
        self.spec = replace(inner.spec, vocab_size=vocab_size)
        self.mesh, self.dtype, self.device = inner.mesh, inner.dtype, inner.device

    def forward(self, batch: ForwardBatch, pool: KVCachePool) -> ForwardOutput:
        """One pass; a token without a row in the table is read as the table's last."""
        own_size, wanted_size = self._inner.spec.vocab_size, self.spec.vocab_size
        readable_BN = batch.ids_BN.clamp(max=own_size - 1)
        output = self._inner.forward(replace(batch, ids_BN=readable_BN, wanted=Wanted.LOGITS), pool)
        rows_RV = F.pad(output.rows[:, :wanted_size], (0, max(0, wanted_size - own_size)), value=-torch.inf)
        rows = rows_RV.argmax(dim=-1) if batch.wanted is Wanted.LIKELIEST else rows_RV
        return replace(output, rows=rows)


def fitted(model: LoadedModel, vocab_size: int) -> LoadedModel:
    """The model with logits of this width; itself where that is its own."""
    if model.decoder.spec.vocab_size == vocab_size:
        return model
    return replace(model, decoder=FittedDecoder(model.decoder, vocab_size))
