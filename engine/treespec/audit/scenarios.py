"""What a pair serves in an audit: every verifier over every way of proposing that it is lossless for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treespec.audit.production import NUM_TESTED
from treespec.config import PluginDrafting, Sampling, Scenario, SsmDrafting
from treespec.draft.selection import SELECTIONS
from treespec.serving.plugins import Methods
from treespec.tree import Contract

GREEDY_SHAPES = {"sequence": (1, 1, 1), "tree": (2, 2, 1)}
SAMPLED_SHAPES = {"sequence": (1, 1), "tree": (2, 2)}
SAMPLED_TOKENS = NUM_TESTED + 1  # the first tree may then be two levels deep
GREEDY_BATCH, SAMPLED_BATCH = 4, 32


def pair_scenarios(
    verifiers: Sequence[str], methods: Methods, sampling: Sampling, max_new_tokens: int
) -> list[dict[str, Any]]:
    """Incremental decoding and every way at temperature 0; then, with ``sampling``, the ways that can sample."""
    greedy = _common(GREEDY_BATCH, max_new_tokens)
    sampled = _common(SAMPLED_BATCH, SAMPLED_TOKENS) | {"sampling": sampling}
    sampling_verifiers = [name for name in verifiers if not methods.verifiers.get(name, "--verifier").greedy_only]
    return [
        {"name": "incremental", "mode": "incremental", **greedy},
        *({"name": f"greedy-{i}", **way, **greedy} for i, way in enumerate(_ways(verifiers, methods, GREEDY_SHAPES))),
        *(
            {"name": f"sampled-{i}", **way, **sampled}
            for i, way in enumerate(_ways(sampling_verifiers, methods, SAMPLED_SHAPES))
        ),
    ]


def _common(batch_size: int, max_new_tokens: int) -> dict[str, Any]:
    return {
        "prompts": "",
        "max_requests_per_batch": batch_size,
        "max_new_tokens": max_new_tokens,
        "ignore_eos": True,
    }


def _ways(
    verifiers: Sequence[str], methods: Methods, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, Any]]:
    for name in verifiers:
        verifier = methods.verifiers.get(name)
        mode = "sequence" if verifier.chains_only else "tree"
        for selection, item in SELECTIONS.items():
            # Without replacement a single draw is an independent one.
            is_new = not (verifier.chains_only and item.contract is Contract.WITHOUT_REPLACEMENT)
            if item.contract in verifier.contracts and is_new:
                drafter = {"kind": "ssm", "expansion": shapes[mode], "selection": selection}
                yield {"verifier": name, "mode": mode, "drafters": [drafter]}
        for plugin in methods.drafters.names:
            if methods.drafters.get(plugin).contracts <= verifier.contracts and not verifier.chains_only:
                drafter = {"kind": "plugin", "name": plugin, "models": (0,)}
                yield {"verifier": name, "mode": mode, "drafters": [drafter]}


def way_of(scenario: Scenario) -> str:
    """How an audited scenario proposes, in words."""
    (drafting,) = scenario.drafting
    if isinstance(drafting, SsmDrafting):
        return f"{drafting.selection} <{','.join(map(str, drafting.expansion))}>"
    assert isinstance(drafting, PluginDrafting)
    return drafting.name


def is_drawn(scenario: Scenario, methods: Methods) -> bool:
    """Whether the proposals of an audited scenario come with a distribution to be checked."""
    (drafting,) = scenario.drafting
    if isinstance(drafting, SsmDrafting):
        return SELECTIONS[drafting.selection].contract is not Contract.DETERMINISTIC
    assert isinstance(drafting, PluginDrafting)
    return methods.drafters.get(drafting.name).contracts != {Contract.DETERMINISTIC}
