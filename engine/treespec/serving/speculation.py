"""From a scenario's words to its verifier and drafter; every mismatch is told before any weight is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from treespec.config import (
    Drafting,
    NgramDrafting,
    PluginDrafting,
    Scenario,
    SsmDrafting,
    SuffixDrafting,
)
from treespec.draft.growth import GrowthRule
from treespec.draft.ngram import NgramDrafter
from treespec.draft.portfolio import PortfolioDrafter
from treespec.draft.protocol import Drafter, DrafterContext, NoDrafter
from treespec.draft.selection import SELECTIONS
from treespec.draft.ssm import SsmDrafter
from treespec.draft.suffix import SuffixDrafter
from treespec.runner import ModelRunner
from treespec.serving.plugins import CheckedDrafter, Methods
from treespec.tree import Contract
from treespec.verify import Verifier, require_lossless

ShapeRule = Callable[[SsmDrafting], GrowthRule]


def verifier_of(scenario: Scenario, methods: Methods) -> Verifier:
    """The scenario's verifier. Raises ConfigError where it is unknown or would not be lossless."""
    where = f"scenario {scenario.name!r}"
    name = scenario.verifier
    if name == "auto":
        name = "greedy" if scenario.sampling.is_greedy else "sampler_match"
    verifier = methods.verifiers.get(name, where)
    require_lossless(
        name,
        verifier,
        frozenset().union(*(_contracts(drafting, methods, where) for drafting in scenario.drafting)),
        is_chain=scenario.mode != "tree",
        is_greedy=scenario.sampling.is_greedy,
        where=where,
    )
    return verifier


def drafter_of(
    scenario: Scenario, methods: Methods, runners: Mapping[int, ModelRunner], shape: ShapeRule, vocab_size: int
) -> Drafter:
    """The scenario's drafter, fresh: a portfolio where there are several, none at all in incremental decoding."""
    drafters = [
        _drafter(drafting, source, methods, [runners[model] for model in drafting.draft_models], shape, vocab_size)
        for source, drafting in enumerate(scenario.drafting)
    ]
    if len(drafters) > 1:
        return PortfolioDrafter(drafters, scenario.num_tree_nodes)
    return drafters[0] if drafters else NoDrafter()


def _drafter(
    drafting: Drafting,
    source: int,
    methods: Methods,
    runners: Sequence[ModelRunner],
    shape: ShapeRule,
    vocab_size: int,
) -> Drafter:
    match drafting:
        case SsmDrafting():
            return SsmDrafter(runners[0], shape(drafting), SELECTIONS[drafting.selection], source)
        case NgramDrafting():
            return NgramDrafter(drafting.num_tokens, drafting.max_ngram, width=drafting.width)
        case SuffixDrafting():
            return SuffixDrafter(drafting.num_nodes, drafting.max_match, drafting.alpha)
        case PluginDrafting():
            factory = methods.drafters.get(drafting.name)
            context = DrafterContext(drafting.options, drafting.max_nodes, runners, source)
            return CheckedDrafter(drafting.name, partial(factory, context), drafting.max_nodes, vocab_size)


def _contracts(drafting: Drafting, methods: Methods, where: str) -> frozenset[Contract]:
    match drafting:
        case SsmDrafting():
            return frozenset({SELECTIONS[drafting.selection].contract})
        case PluginDrafting():
            return methods.drafters.get(drafting.name, where).contracts
        case _:
            return frozenset({Contract.DETERMINISTIC})
