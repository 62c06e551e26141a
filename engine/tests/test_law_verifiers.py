"""Laws of every verifier, over random trees that production drew, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.tests.properties import examples, expansions, trees
from treespec.audit.enumeration import ScriptedDraws
from treespec.chance import Chance
from treespec.config.sampling import Sampling
from treespec.draft.growth import TreeGrowth
from treespec.draft.selection import SELECTIONS, Leaves
from treespec.ops.draws import DraftDraws, VerifyDraws
from treespec.ops.sampling import TargetRows
from treespec.tree import Proposals, TokenTree, Topology
from treespec.verify import Verifier, VerifyResult, verifiers

NAMES = tuple(verifiers().names)
RATIO_RULES = tuple(sorted({*NAMES} - {"greedy", "sampler_match"}))
DRAWN = Sampling(temperature=1)
GREEDY = Sampling(temperature=0)
VOCAB_SIZE = 8


def verifier(name: str) -> Verifier:
    return verifiers().get(name)


@dataclass(frozen=True)
class Step:
    """A batch: proposals and the target's logits at their nodes."""

    proposals: list[Proposals]
    logits: list[Tensor]  # per item [N, V]
    rule: Sampling

    def judge(self, name: str, seed: int = 0) -> list[VerifyResult]:
        return self._judge(name, list(range(len(self.proposals))), seed)

    def judge_alone(self, name: str, item: int, seed: int = 0) -> VerifyResult:
        return self._judge(name, [item], seed)[0]

    def _judge(self, name: str, items: list[int], seed: int) -> list[VerifyResult]:
        logits_TV = torch.cat([self.logits[item] for item in items])
        draws = VerifyDraws([Chance(seed, item) for item in items], [10 + item for item in items])
        target = TargetRows(logits_TV, [self.rule] * len(logits_TV))
        return verifier(name).verify([self.proposals[item] for item in items], target, draws)


def drafted(widths: Sequence[int], selection: str, rule: Sampling, seed: int, *, agrees: bool = False) -> Step:
    """One tree that production drew from a random draft; ``agrees``: the target has the same distributions."""
    rng = torch.Generator().manual_seed(seed)
    growth = TreeGrowth(0, Topology.from_expansion(widths), len(widths))
    target: dict[int, Tensor] = {}
    q, num_q = [], 0
    draws = DraftDraws([Chance(seed, 0)], [0])
    while frontier := list(growth.frontier):
        logits_RV = torch.randn(len(frontier), VOCAB_SIZE, generator=rng) * 2
        target.update(zip(frontier, logits_RV, strict=True))
        depths = [growth.depth + 1] * len(frontier)
        leaves = Leaves([0] * len(frontier), growth.widths(), depths, [rule] * len(frontier))
        selected = SELECTIONS[selection].select(logits_RV, leaves, draws)
        growth.expand(selected.tokens, SELECTIONS[selection].contract, range(num_q, num_q + len(frontier)))
        num_q += len(frontier)
        q += [] if selected.q_RV is None else [selected.q_RV]
    proposals = growth.build(torch.cat(q) if q else None)
    random_NV = torch.randn(len(proposals.tree), VOCAB_SIZE, generator=rng) * 2
    logits_NV = torch.stack([target.get(node, random_NV[node]) for node in range(len(proposals.tree))])
    return Step([proposals], [logits_NV if agrees else random_NV], rule)


def together(steps: Sequence[Step]) -> Step:
    return Step([step.proposals[0] for step in steps], [step.logits[0] for step in steps], steps[0].rule)


def allowed(name: str, selection: str, widths: Sequence[int]) -> bool:
    rule = verifier(name)
    is_chain = all(width == 1 for width in widths)
    return SELECTIONS[selection].contract in rule.contracts and (is_chain or not rule.chains_only)


shapes = expansions(max_nodes=20)
chains = st.integers(1, 6).map(lambda depth: (1,) * depth)
selections = st.sampled_from(sorted(SELECTIONS))
seeds = st.integers(0, 1000)


@given(widths=shapes | chains, selection=selections, seed=seeds)
@examples(60)
def test_at_temperature_zero_every_rule_is_greedy(widths: tuple[int, ...], selection: str, seed: int) -> None:
    step = drafted(widths, selection, GREEDY, seed, agrees=seed % 2 == 0)
    expected = step.judge("greedy")
    for name in NAMES:
        if allowed(name, selection, widths):
            assert step.judge(name) == expected, name


@given(tree=trees(VOCAB_SIZE), seed=seeds)
@examples(60)
def test_at_temperature_zero_any_tree_is_judged_greedily(tree: TokenTree, seed: int) -> None:
    logits_NV = torch.randn(len(tree), VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
    # Half of the nodes go on with a child that is there.
    for node in range(0, len(tree), 2):
        for token in list(tree.children[node])[-1:]:
            logits_NV[node, token] = 100
    step = Step([Proposals.deterministic(tree)], [logits_NV], GREEDY)
    for name in ("recursive_rejection", "sampler_match", "traversal"):
        assert step.judge(name) == step.judge("greedy"), name


@given(widths=shapes | chains, selection=st.sampled_from(["iid", "without_replacement"]), seed=seeds)
@examples(60)
def test_a_draft_that_is_the_target_is_accepted_to_the_last_level(
    widths: tuple[int, ...], selection: str, seed: int
) -> None:
    step = drafted(widths, selection, DRAWN, seed, agrees=True)
    for name in RATIO_RULES:
        if allowed(name, selection, widths):
            (result,) = step.judge(name, seed)
            # The first draw below every node is accepted.
            item, path = step.proposals[0], [0]
            while rows := item.rows_below[path[-1]]:
                path.append(int(item.nodes[rows[0]]))
            assert result.accepted_nodes == tuple(path[1:]), name


@given(widths=shapes | chains, selection=selections, seed=seeds)
@examples(60)
def test_what_is_accepted_is_a_root_path_and_the_next_token_is_the_targets(
    widths: tuple[int, ...], selection: str, seed: int
) -> None:
    step = drafted(widths, selection, Sampling(temperature=1, top_k=3), seed)
    (item,), (logits_NV,) = step.proposals, step.logits
    for name in set(NAMES) - {"greedy"}:
        if allowed(name, selection, widths):
            (result,) = step.judge(name, seed)
            path = (0, *result.accepted_nodes)
            assert [int(item.tree.parents[node]) for node in path[1:]] == list(path[:-1])
            kept = [*item.tree.token_ids[list(path[1:])].tolist(), result.next_token_id]
            for node, token in zip(path, kept, strict=True):
                assert token in logits_NV[node].topk(3).indices.tolist(), name


@given(batch=st.lists(st.tuples(shapes | chains, seeds), min_size=1, max_size=6), selection=selections, seed=seeds)
@examples(40)
def test_a_batch_changes_nothing(batch: list[tuple[tuple[int, ...], int]], selection: str, seed: int) -> None:
    for name in NAMES:
        fitting = [item for item in batch if allowed(name, selection, item[0])]
        if fitting:
            step = together([drafted(widths, selection, DRAWN, own_seed) for widths, own_seed in fitting])
            alone = [step.judge_alone(name, item, seed) for item in range(len(fitting))]
            assert step.judge(name, seed) == alone, name


@given(widths=chains, selection=selections, seed=seeds)
@examples(100)
def test_traversal_of_a_chain_is_block_verification(widths: tuple[int, ...], selection: str, seed: int) -> None:
    step = drafted(widths, selection, DRAWN, seed)
    assert step.judge("traversal", seed) == step.judge("block", seed)


@pytest.mark.parametrize("name", NAMES)
def test_judging_changes_neither_proposals_nor_logits(name: str) -> None:
    widths = (1, 1, 1) if verifier(name).chains_only else (3, 2)
    selection = "iid" if name == "mss" else "without_replacement"
    step = drafted(widths, selection, DRAWN, seed=3)
    q_QV = step.proposals[0].q_QV
    assert q_QV is not None
    before = q_QV.clone(), step.logits[0].clone()
    for seed in range(5):
        step.judge(name, seed)
    assert torch.equal(before[0], q_QV) and torch.equal(before[1], step.logits[0])


class Recording(VerifyDraws):
    """Production's draws that note the depth of what is chosen."""

    depths: Sequence[int] = ()

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:
        self.depths = depths
        return super().choose(items, weights_RV, depths)


@pytest.mark.parametrize("name", RATIO_RULES)
def test_the_next_token_is_drawn_for_its_own_position(name: str) -> None:
    widths = (1, 1, 1) if verifier(name).chains_only else (2, 1, 1)
    seen = set()
    for seed in range(8):
        step = drafted(widths, "iid", DRAWN, seed, agrees=seed % 2 == 0)
        draws = Recording([Chance(seed, 0)], [10])
        (result,) = verifier(name).verify(
            step.proposals, TargetRows(step.logits[0], [DRAWN] * len(step.logits[0])), draws
        )
        assert draws.depths == [len(result.accepted_nodes) + 1]
        seen.add(len(result.accepted_nodes))
    assert len(seen) > 1


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_has_no_results(name: str) -> None:
    assert verifier(name).verify([], TargetRows(torch.zeros(0, 4), []), ScriptedDraws([])) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_root_alone_is_incremental_decoding(name: str) -> None:
    target = TargetRows(torch.tensor([[0.0, 0.0, 50.0, 0.0]]), [GREEDY])
    assert verifier(name).verify([Proposals.none(1)], target, ScriptedDraws([()])) == [VerifyResult((), 2)]
