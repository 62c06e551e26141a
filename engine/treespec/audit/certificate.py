"""The lossless certificate: what a verifier emits, summed over every outcome, against the target's own distribution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

import numpy as np

from treespec.audit.enumeration import DraftedTree, Drafting, MakeDraws, Weighted, every_output, every_tree, scripted
from treespec.audit.toy import AS_IT_IS, KINDS, ToyWorld, toy_world
from treespec.config.sampling import Sampling
from treespec.draft.selection import SELECTIONS, Selection
from treespec.errors import ConfigError
from treespec.tree import Contract, Topology
from treespec.verify import Verifier, require_lossless

TOLERANCE = 1e-12  # of a total variation that is rounding in float64
GREEDY = Sampling(temperature=0)
TRUNCATED = Sampling(temperature=0.7, top_k=3, top_p=0.9)


class Status(StrEnum):
    """What the enumeration says."""

    LOSSLESS = "lossless"
    REFUSED = "refused"
    LOSSY = "LOSSY"


@dataclass(frozen=True)
class Case:
    """Drafters, each a selection and an expansion, that a verifier is tried on; their trees are merged."""

    drafts: tuple[tuple[str, tuple[int, ...]], ...]
    vocab_size: int
    rule: Sampling = AS_IT_IS
    kinds: tuple[str, ...] = KINDS
    num_seeds: int = 2

    @property
    def selection(self) -> str:
        """Names of the selections."""
        return " + ".join(name for name, _ in self.drafts)

    @property
    def topology(self) -> str:
        """The expansions as the paper writes them."""
        return " + ".join(expansion_text(widths) for _, widths in self.drafts)

    @property
    def sampling(self) -> str:
        """The transformations of the logits that are not neutral."""
        given = {"temperature": self.rule.temperature, **self.rule.model_dump(exclude_defaults=True)}
        return ", ".join(f"{name} {value:g}" for name, value in given.items())

    @property
    def is_chain(self) -> bool:
        """Whether at most one token is drawn below a node."""
        return len(self.drafts) == 1 and set(self.drafts[0][1]) == {1}

    def drafting(self, selections: Mapping[str, Selection]) -> list[Drafting]:
        """The drafters, each with a draft of its own."""
        return [
            Drafting(selections[selection], Topology.from_expansion(widths), drafter)
            for drafter, (selection, widths) in enumerate(self.drafts)
        ]

    def worlds(self) -> Iterator[ToyWorld]:
        """One of every kind and seed, as deep as the deepest tree."""
        depth = max(len(widths) for _, widths in self.drafts)
        for kind in self.kinds:
            for seed in range(self.num_seeds):
                yield toy_world(kind, self.vocab_size, depth, seed, self.rule)


@dataclass(frozen=True)
class CertificateRow:
    """One verifier in one case: the worst of its worlds' distances, and the mean over them of what is accepted."""

    verifier: str
    selection: str
    topology: str
    sampling: str
    vocab_size: int
    status: Status
    num_worlds: int
    num_outcomes: int
    total_variation: float | None  # None where it was refused
    expected_accepted: float | None
    accepted_by_token_rejection: float | None  # in closed form; None for trees
    reason: str | None  # why it was refused


@dataclass(frozen=True)
class Measured:
    """All outcomes in one world."""

    num_outcomes: int
    total_variation: float
    expected_accepted: float


_SMALL_TREES = ((1, 1, 1), (2,), (3,), (2, 2), (2, 1), (2, 1, 1))
_PORTFOLIOS = (
    (("iid", (2,)), ("top_k", (1, 1))),
    (("top_k", (2,)), ("without_replacement", (2, 1))),
    (("iid", (2, 1)), ("iid", (1, 1))),
    (("without_replacement", (2, 1)), ("without_replacement", (1, 1))),
)


def expansion_text(widths: Sequence[int]) -> str:
    """An expansion as the paper writes it."""
    return f"<{','.join(map(str, widths))}>"


def default_cases() -> tuple[Case, ...]:
    """Every selection on small trees, portfolios of two drafters, truncated distributions, and temperature 0."""
    single = tuple(
        Case(((selection, widths),), vocab_size=4 if len(widths) == 1 else 3, num_seeds=2 if sum(widths) < 4 else 1)
        for selection in SELECTIONS
        for widths in _SMALL_TREES
    )
    merged = tuple(Case(drafts, vocab_size=3, num_seeds=1) for drafts in _PORTFOLIOS)
    ruled = tuple(
        Case(((selection, widths),), vocab_size=4, rule=rule, kinds=("random", "mixed"), num_seeds=4)
        for rule in (TRUNCATED, GREEDY)
        for selection in SELECTIONS
        for widths in ((1, 1), (2, 1))
    )
    return single + merged + ruled


def certify(
    verifiers: Mapping[str, Verifier],
    cases: Sequence[Case] | None = None,
    selections: Mapping[str, Selection] = SELECTIONS,
) -> list[CertificateRow]:
    """A row per verifier and case; a case that the verifier refuses is not run."""
    rows: list[CertificateRow] = []
    for case in default_cases() if cases is None else cases:
        drafts = case.drafting(selections)
        reasons = {name: _refusal(name, verifier, case, drafts) for name, verifier in verifiers.items()}
        rows += [_row(name, case, [], reason=reason) for name, reason in reasons.items() if reason is not None]
        judging = {name: verifier for name, verifier in verifiers.items() if reasons[name] is None}
        if judging:
            rows += _judged(judging, case, drafts)
    return sorted(rows, key=lambda row: list(verifiers).index(row.verifier))


def measure(
    world: ToyWorld, trees: Sequence[Weighted[DraftedTree]], verifier: Verifier, make_draws: MakeDraws = scripted
) -> Measured:
    """Distance of the first depth + 1 tokens' joint distribution from the target's own."""
    outputs = every_output(world, trees, verifier, make_draws)
    emitted = np.zeros(world.num_prefixes)
    np.add.at(emitted, [output.value.prefix for output in outputs], [output.probability for output in outputs])
    return Measured(
        num_outcomes=len(outputs),
        total_variation=float(np.abs(world.continued(emitted) - world.truth()).sum() / 2),
        expected_accepted=sum(output.probability * output.value.num_accepted for output in outputs),
    )


def expected_on_chain(world: ToyWorld, draft: Drafting) -> float:
    """Closed form of what token rejection accepts: the sum over levels of the product of min(p, q) on the way."""
    p_PV, logits_PV = world.target_distribution, world.drafts_PV[draft.drafter]
    q_PV = world.distribution(logits_PV)
    if draft.selection.contract is Contract.DETERMINISTIC:
        q_PV = np.eye(world.vocab_size)[logits_PV.argmax(dim=-1).numpy()]
    reached = np.zeros(world.num_prefixes)
    reached[0] = 1
    for prefix, both_V in enumerate(np.minimum(p_PV, q_PV)):
        first = world.child(prefix, 0)
        reached[first : first + world.vocab_size] = reached[prefix] * both_V
    return float(reached[1 : len(p_PV)].sum())


def _refusal(name: str, verifier: Verifier, case: Case, drafts: Sequence[Drafting]) -> str | None:
    contracts = frozenset(draft.selection.contract for draft in drafts)
    where = f"certificate: {case.selection} on {case.topology}"
    try:
        require_lossless(name, verifier, contracts, is_chain=case.is_chain, is_greedy=case.rule.is_greedy, where=where)
    except ConfigError as error:
        return str(error)
    return None


def _judged(verifiers: Mapping[str, Verifier], case: Case, drafts: Sequence[Drafting]) -> list[CertificateRow]:
    measured: dict[str, list[Measured]] = {name: [] for name in verifiers}
    closed_form = []
    for world in case.worlds():
        trees = every_tree(world, drafts)
        for name, verifier in verifiers.items():
            measured[name].append(measure(world, trees, verifier))
        closed_form.append(expected_on_chain(world, drafts[0]))
    on_chain = fmean(closed_form) if case.is_chain else None
    return [_row(name, case, worlds, on_chain) for name, worlds in measured.items()]


def _row(
    name: str, case: Case, worlds: Sequence[Measured], on_chain: float | None = None, reason: str | None = None
) -> CertificateRow:
    worst = max((world.total_variation for world in worlds), default=None)
    status = Status.REFUSED if worst is None else Status.LOSSLESS if worst < TOLERANCE else Status.LOSSY
    return CertificateRow(
        verifier=name,
        selection=case.selection,
        topology=case.topology,
        sampling=case.sampling,
        vocab_size=case.vocab_size,
        status=status,
        num_worlds=len(worlds),
        num_outcomes=sum(world.num_outcomes for world in worlds),
        total_variation=worst,
        expected_accepted=fmean(world.expected_accepted for world in worlds) if worlds else None,
        accepted_by_token_rejection=on_chain,
        reason=reason,
    )
