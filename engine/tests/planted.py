"""Errors of every kind that speculation can have, each planted into a working part.

Legend: R rows of logits, V vocabulary, L layers, S slots, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from treespec.config import Sampling
from treespec.draft.selection import IndependentDraws, Leaves, Selected
from treespec.ops.draws import Draws
from treespec.ops.sampling import TargetRows, distributions
from treespec.runner import ForwardRow, ModelRunner, RunHandle, Wanted
from treespec.tree import Contract, Proposals
from treespec.verify import GreedyVerifier, SamplerMatchVerifier, VerifyResult


class OffByOne(ModelRunner):
    """Puts the nodes of a tree one position too far."""

    def submit(self, rows: Sequence[ForwardRow], wanted: Wanted = Wanted.LOGITS) -> RunHandle:
        late = [replace(row, positions=row.positions + (row.num_logits > 1)) for row in rows]
        return super().submit(late, wanted)


class SeesCousins(ModelRunner):
    """Lets a node of a tree see every node before it, not its ancestors alone."""

    def submit(self, rows: Sequence[ForwardRow], wanted: Wanted = Wanted.LOGITS) -> RunHandle:
        return super().submit([self._causal(row) if row.num_logits > 1 else row for row in rows], wanted)

    @staticmethod
    def _causal(row: ForwardRow) -> ForwardRow:
        visible = row.visible.copy()
        n = len(row.token_ids)
        visible[:, -n:] |= torch.ones(n, n).tril().bool().numpy()
        return replace(row, visible=visible)


class LeavesSlots(ModelRunner):
    """Commits a path without moving it: the context then holds the slots of rejected nodes."""

    def commit(self, paths: Sequence[tuple[int, Sequence[int]]]) -> None:
        for region, offsets in paths:
            self.allocator.commit(region, offsets)


class SwapsKeys(ModelRunner):
    """Swaps the keys of the last two slots of an accepted path, and leaves their values."""

    @torch.inference_mode()
    def commit(self, paths: Sequence[tuple[int, Sequence[int]]]) -> None:
        super().commit(paths)
        for region, offsets in paths:
            if len(offsets) == 2:  # a prompt is longer or a single token
                end = region * self.allocator.region_capacity + self.allocator.context_length(region)
                keys_LSGD = self.pool.kv_2LSGD[0]
                keys_LSGD[:, [end - 2, end - 1]] = keys_LSGD[:, [end - 1, end - 2]]


class SecondLikeliest:
    """A verifier that emits the second likeliest token after a path of two."""

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = True

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        results, start = [], 0
        for item, result in zip(proposals, GreedyVerifier().verify(proposals, target, draws), strict=True):
            if len(result.accepted_nodes) == 2:
                row = start + result.accepted_nodes[-1]
                results.append(VerifyResult(result.accepted_nodes, int(target._logits_TV[row].topk(2).indices[1])))
            else:
                results.append(result)
            start += len(item.tree)
        return results


class RawReport:
    """Draws from the truncated distribution and reports the whole one."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        whole = Sampling(temperature=leaves.rules[0].temperature)
        drawn = IndependentDraws().select(logits_RV, leaves, draws)
        return Selected(drawn.tokens, distributions(logits_RV, [whole] * len(leaves.rules)))


class RepeatedDraw:
    """Uses the noise of the first draw for the second: each alone comes from q."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        drawn = IndependentDraws().select(logits_RV, leaves, draws)
        return Selected([tokens[:1] * len(tokens) for tokens in drawn.tokens], drawn.q_RV)


class CrossedParents:
    """Draws the children of two siblings from each other's distribution: all children together look right."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        items = list(leaves.items)
        sibling = [
            next((s for s, other in enumerate(items) if other == item and s != r), r) for r, item in enumerate(items)
        ]
        drawn = IndependentDraws().select(logits_RV[sibling], leaves, draws)
        return Selected(drawn.tokens, distributions(logits_RV, leaves.rules))


class Replaced(IndependentDraws):
    """Draws with replacement and says without."""

    contract = Contract.WITHOUT_REPLACEMENT


class SameUniform:
    """Draws that use one uniform for the tokens of a step."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def accept(self, items: Sequence[int], probabilities_R: Tensor) -> list[bool]:
        return self._draws.accept(items, probabilities_R)

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:
        return self._draws.choose(items, weights_RV, [1] * len(depths))


class SharedNoise:
    """The target draws every token of a step with the same noise: each alone has the right distribution."""

    contracts = frozenset(Contract)
    chains_only = False
    greedy_only = False

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        return SamplerMatchVerifier().verify(proposals, target, SameUniform(draws))


class LikeliestAlways(GreedyVerifier):
    """Argmax verification at a temperature above 0."""

    greedy_only = False


class RatioVerifier:
    """Recursive rejection once more, written for this test; ``keeps_target`` forgets the residual."""

    contracts = frozenset({Contract.IID})
    chains_only = False
    greedy_only = False

    def __init__(self, *, keeps_target: bool) -> None:
        self._keeps_target = keeps_target

    def verify(self, proposals: Sequence[Proposals], target: TargetRows, draws: Draws) -> list[VerifyResult]:
        results, start = [], 0
        for i, item in enumerate(proposals):
            results.append(self._judge(i, item, start, target, draws))
            start += len(item.tree)
        return results

    def _judge(self, i: int, item: Proposals, start: int, target: TargetRows, draws: Draws) -> VerifyResult:
        path: list[int] = []
        rows = list(item.rows_below[0])
        p_V = target.probabilities([start])[0]
        while rows:
            row = rows.pop(0)
            node = int(item.nodes[row])
            assert item.q_QV is not None
            q_V, token_id = item.q_QV[int(item.q_rows[row])], int(item.tree.token_ids[node])
            if draws.accept([i], (p_V[token_id] / p_V.sum() / q_V[token_id])[None])[0]:
                path.append(node)
                rows = list(item.rows_below[node])
                p_V = target.probabilities([start + node])[0]
            elif not self._keeps_target:
                p_V = (p_V / p_V.sum() - q_V).clamp(min=0)
        return VerifyResult(tuple(path), draws.choose([i], p_V[None], [len(path) + 1])[0])
