"""Negative controls: mistakes of a kind that engines have shipped, which the enumeration must tell from the truth.

Each is a small change to production code, run beside the code without the change: an audit that would not notice
the first, or that would blame the second, proves nothing.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from torch import Tensor

from treespec.audit.certificate import TOLERANCE, expansion_text, measure
from treespec.audit.enumeration import DraftedTree, Drafting, MakeDraws, Script, ScriptedDraws, every_tree, scripted
from treespec.audit.toy import toy_world
from treespec.config.sampling import Sampling
from treespec.draft.selection import DrawsWithoutReplacement, IndependentDraws, Leaves, Selected, Selection, TopK
from treespec.ops.draws import Draws
from treespec.ops.sampling import distributions
from treespec.tree import Contract, Topology
from treespec.verify import BlockVerifier, RecursiveRejectionVerifier, TraversalVerifier, Verifier
from treespec.verify.rejection import Owed, residuals

HEAD_OF_TWO = Sampling(temperature=1, top_k=2)


class TopKAsDrawn:
    """Takes the likeliest tokens and calls them draws from q."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        return Selected(TopK().select(logits_RV, leaves, draws).tokens, distributions(logits_RV, leaves.rules))


class RawReport:
    """Draws from the two likeliest tokens and reports q as it was before that truncation."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        truncated = replace(leaves, rules=[HEAD_OF_TWO] * len(leaves.rules))
        tokens = IndependentDraws().select(logits_RV, truncated, draws).tokens
        return Selected(tokens, distributions(logits_RV, leaves.rules))


class PrunedDraws:
    """Draws one token more than is wanted and drops the least likely one."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        wider = replace(leaves, widths=[width + 1 for width in leaves.widths])
        drawn = IndependentDraws().select(logits_RV, wider, draws)
        kept = []
        for q_V, tokens in zip(distributions(logits_RV, leaves.rules).tolist(), drawn.tokens, strict=True):
            least = min(tokens, key=q_V.__getitem__)
            kept.append([token for place, token in enumerate(tokens) if place != tokens.index(least)])
        return Selected(kept, drawn.q_RV)


class MergedDraws:
    """Draws with replacement and forgets how often a token was drawn (SpecInfer's definition 3.2 read literally)."""

    contract = Contract.IID

    def select(self, logits_RV: Tensor, leaves: Leaves, draws: Draws) -> Selected:
        drawn = IndependentDraws().select(logits_RV, leaves, draws)
        return Selected([list(dict.fromkeys(tokens)) for tokens in drawn.tokens], drawn.q_RV)


class ReplacedAsIndependent(DrawsWithoutReplacement):
    """Draws without replacement and reports independent draws."""

    contract = Contract.IID


class KeepsTarget(RecursiveRejectionVerifier):
    """Recursive rejection that draws from p after a rejection, not from (p - q)+."""

    def residuals(self, owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
        return _unreduced(owed, alphas, q_V)


class KeepsTargetBlock(BlockVerifier):
    """Block verification with the same mistake."""

    def residuals(self, owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
        return _unreduced(owed, alphas, q_V)


class KeepsTargetTraversal(TraversalVerifier):
    """Traversal verification with the same mistake."""

    def residuals(self, owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
        return _unreduced(owed, alphas, q_V)


def _unreduced(owed: Sequence[Owed], alphas: Sequence[float], q_V: Sequence[Tensor]) -> list[Owed]:
    """The right mass, of the wrong distribution."""
    right = residuals(owed, alphas, q_V)
    return [Owed(p.weights_V * (left.mass / p.mass), left.mass) for p, left in zip(owed, right, strict=True)]


class SharedNoise(ScriptedDraws):
    """Verification that takes again the uniforms by which a chain was drawn.

    A token was drawn because its uniform fell into the token's interval of the cumulated q. Given the token, the
    uniform is uniform on that interval, so the chances of what it decides next are shares of the interval: exact.
    """

    def __init__(
        self, trees: Sequence[DraftedTree], scripts: Sequence[Script], *, for_coins: bool, for_tokens: bool
    ) -> None:
        super().__init__(scripts)
        self._noise = [_intervals(tree) for tree in trees]  # per item, by depth
        self._num_coins = [0] * len(scripts)
        self._for_coins = for_coins
        self._for_tokens = for_tokens

    def accept(self, items: Sequence[int], probabilities_R: Tensor) -> list[bool]:
        if not self._for_coins:
            return super().accept(items, probabilities_R)
        return [self._coin(item, min(p, 1.0)) for item, p in zip(items, probabilities_R.tolist(), strict=True)]

    def choose(self, items: Sequence[int], weights_RV: Tensor, depths: Sequence[int]) -> list[int]:
        tokens = []
        for item, weights_V, depth in zip(items, weights_RV, depths, strict=True):
            if self._for_tokens and depth <= len(self._noise[item]):
                ends = (weights_V.cumsum(0) / weights_V.sum()).tolist()
                tokens.append(self.answer(item, _shares(self._noise[item][depth - 1], ends)))
            else:
                tokens += super().choose([item], weights_V.unsqueeze(0), [depth])
        return tokens

    def _coin(self, item: int, p: float) -> bool:
        """A top-down rule tosses one coin per level: heads where the level's uniform is below p."""
        level = self._num_coins[item]
        self._num_coins[item] += 1
        low, high = self._noise[item][level]
        heads = self.answer(item, _shares((low, high), [p, 1.0])) == 0
        self._noise[item][level] = (low, min(high, p)) if heads else (max(low, p), high)
        return heads


def _intervals(tree: DraftedTree) -> list[tuple[float, float]]:
    """Per level of a chain: the uniforms that draw its token."""
    proposals, intervals = tree.proposals, []
    assert proposals.is_chain and proposals.q_QV is not None
    for node, q_row in zip(proposals.nodes, proposals.q_rows, strict=True):
        ends = [0.0, *proposals.q_QV[q_row].cumsum(0).tolist()]
        token_id = int(proposals.tree.token_ids[node])
        intervals.append((ends[token_id], ends[token_id + 1]))
    return intervals


def _shares(interval: tuple[float, float], ends: Sequence[float]) -> list[float]:
    """What part of an interval lies in each cell; cells end at ``ends``, the first begins at 0."""
    low, high = interval
    cells = zip([0.0, *ends[:-1]], ends, strict=True)
    parts = [max(0.0, min(high, end) - max(low, begin)) for begin, end in cells]
    return [part / sum(parts) for part in parts]


@dataclass(frozen=True)
class Setup:
    """One way to draft and verify."""

    selection: Selection
    verifier: Verifier
    make_draws: MakeDraws = scripted


@dataclass(frozen=True)
class Control:
    """A mistake and the right way beside it."""

    name: str
    verifier: str
    expansion: tuple[int, ...]
    mistaken: Setup
    right: Setup


@dataclass(frozen=True)
class ControlRow:
    """Whether a mistake was seen: the largest distance from the target that it causes, and the largest without it."""

    name: str
    verifier: str
    topology: str
    vocab_size: int
    num_worlds: int
    num_outcomes: int
    total_variation: float
    right_total_variation: float
    expected_accepted: float
    right_expected_accepted: float
    is_caught: bool


def default_controls() -> tuple[Control, ...]:
    """Every known mistake."""
    drawn, recursive = IndependentDraws(), RecursiveRejectionVerifier()
    right = Setup(drawn, recursive)
    coins, tokens = (partial(SharedNoise, for_coins=for_coins, for_tokens=not for_coins) for for_coins in (True, False))
    return (
        Control("p/q on top-k children", "mss", (2,), Setup(TopKAsDrawn(), recursive), Setup(TopK(), recursive)),
        Control("raw q of truncated draws", "mss", (1, 1), Setup(RawReport(), recursive), right),
        Control("pruned after drawing", "mss", (1, 1), Setup(PrunedDraws(), recursive), right),
        Control("multiplicity dropped", "mss", (3,), Setup(MergedDraws(), recursive), right),
        Control(
            "without replacement judged as independent",
            "mss",
            (2,),
            Setup(ReplacedAsIndependent(), recursive),
            Setup(DrawsWithoutReplacement(), recursive),
        ),
        Control("draft noise decides acceptance", "token_rejection", (1, 1), Setup(drawn, recursive, coins), right),
        Control("draft noise decides recovery", "token_rejection", (1, 1), Setup(drawn, recursive, tokens), right),
        Control("p for the residual", "recursive_rejection", (2, 1), Setup(drawn, KeepsTarget()), right),
        Control("p for the residual", "block", (1, 1), Setup(drawn, KeepsTargetBlock()), Setup(drawn, BlockVerifier())),
        Control(
            "p for the residual",
            "traversal",
            (2, 1),
            Setup(drawn, KeepsTargetTraversal()),
            Setup(drawn, TraversalVerifier()),
        ),
    )


def run_controls(
    controls: Sequence[Control] | None = None, vocab_size: int = 4, num_worlds: int = 4
) -> list[ControlRow]:
    """Enumerate every control on random worlds; a mistake is caught if it shows in one and the right way in none."""
    return [_row(control, vocab_size, num_worlds) for control in (default_controls() if controls is None else controls)]


def _row(control: Control, vocab_size: int, num_worlds: int) -> ControlRow:
    topology = Topology.from_expansion(control.expansion)
    worlds = [toy_world("random", vocab_size, topology.depth, seed) for seed in range(num_worlds)]
    mistaken, right = (
        [
            measure(world, every_tree(world, [Drafting(setup.selection, topology)]), setup.verifier, setup.make_draws)
            for world in worlds
        ]
        for setup in (control.mistaken, control.right)
    )
    seen, unseen = (max(world.total_variation for world in worlds) for worlds in (mistaken, right))
    return ControlRow(
        name=control.name,
        verifier=control.verifier,
        topology=expansion_text(control.expansion),
        vocab_size=vocab_size,
        num_worlds=num_worlds,
        num_outcomes=sum(world.num_outcomes for world in mistaken),
        total_variation=seen,
        right_total_variation=unseen,
        expected_accepted=fmean(world.expected_accepted for world in mistaken),
        right_expected_accepted=fmean(world.expected_accepted for world in right),
        is_caught=unseen < TOLERANCE < seen,
    )
