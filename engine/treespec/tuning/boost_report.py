"""What boost-tuning brings on held-out prompts: comparisons at unequal and at equal numbers of nodes, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from treespec.tuning.boost_evaluate import (
    Estimate,
    Expansion,
    Speculation,
    TargetText,
    best_single,
    expansions_within,
    mean_merged_nodes,
    num_nodes,
    rate,
    rate_difference,
    target_text,
)
from treespec.tuning.boost_samples import Continuations, token_ranks

PARTS = {"whole": False, "before loop": True}  # part of the text: only up to its first repeated 8-gram?
MERGED_EXPANSIONS: tuple[Expansion, ...] = ((1,) * 4, (1,) * 8, (2, 1, 1, 1))
MAX_RANK = 5


@dataclass(frozen=True)
class Comparison:
    """Merged drafts against the best single draft under one rule for the single tree."""

    part: str
    rule: str
    merged: Speculation
    merged_nodes: float  # on average
    merged_rate: float  # tokens per step
    single: Speculation
    single_rate: float
    difference: Estimate

    def as_json(self) -> dict[str, Any]:
        """All of it, with the single tree's nodes."""
        return asdict(self) | {"single_nodes": self.single.max_nodes, "merged_max_nodes": self.merged.max_nodes}


@dataclass(frozen=True)
class HeldOutResults:
    """Agreement of every draft, and the comparisons."""

    num_prompts: int
    top_k: dict[str, dict[str, list[float]]]  # part -> draft -> share of tokens among its k likeliest, k = 1..5
    comparisons: list[Comparison]

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        comparisons = [comparison.as_json() for comparison in self.comparisons]
        return {"num_prompts": self.num_prompts, "top_k": self.top_k, "comparisons": comparisons}


def compare_held_out(
    networks: Mapping[str, nn.Module],
    merged: Sequence[str],
    continuations: Continuations,
    expansions: Sequence[Expansion] = MERGED_EXPANSIONS,
) -> HeldOutResults:
    """Compare the drafts ``merged`` with each single one of ``networks``, all of which may be the best."""
    ranks_RT = {name: token_ranks(network, continuations) for name, network in networks.items()}
    texts = {part: target_text(ranks_RT, continuations, before_loop=cut) for part, cut in PARTS.items()}
    top_k = {part: _agreement(text, list(networks)) for part, text in texts.items()}
    comparisons = []
    for expansion in expansions:
        speculation = Speculation(tuple(merged), expansion)
        nodes = mean_merged_nodes(networks, continuations, texts["whole"], speculation)
        for part, text in texts.items():
            comparisons += _compare(part, text, speculation, nodes, list(networks))
    return HeldOutResults(len(continuations), top_k, comparisons)


def _compare(
    part: str, text: TargetText, merged: Speculation, merged_nodes: float, singles: Sequence[str]
) -> list[Comparison]:
    counts_R2 = merged.counts(text)
    comparisons = []
    for rule, expansions in single_trees(merged, merged_nodes).items():
        single = best_single(text, singles, expansions)
        single_R2 = single.counts(text)
        difference = rate_difference(counts_R2, single_R2)
        row = Comparison(part, rule, merged, merged_nodes, rate(counts_R2), single, rate(single_R2), difference)
        comparisons.append(row)
    return comparisons


def single_trees(merged: Speculation, merged_nodes: float) -> dict[str, list[Expansion]]:
    """Rule -> expansions that a single draft may use against a merged tree.

    Widening the first level by the number of drafts gives a single tree of exactly as many nodes as the merged one has
    at most.
    """
    first, *rest = merged.expansion
    return {
        "same expansion": [merged.expansion],
        "wider first level": [(len(merged.drafts) * first, *rest)],
        "best within its mean nodes": expansions_within(math.ceil(merged_nodes)),
        "best within its most nodes": expansions_within(merged.max_nodes),
    }


def _agreement(text: TargetText, drafts: Sequence[str]) -> dict[str, list[float]]:
    pooled = {draft: text.pooled_ranks(draft) for draft in drafts}
    return {draft: [float((ranks <= k).mean()) for k in range(1, MAX_RANK + 1)] for draft, ranks in pooled.items()}


def agreement_table(results: HeldOutResults) -> str:
    """Markdown: top-k agreement of every draft."""
    heads = " | ".join(f"top{k}" for k in range(1, MAX_RANK + 1))
    lines = [f"| draft | text | {heads} |", "|---" * (2 + MAX_RANK) + "|"]
    for part, drafts in results.top_k.items():
        lines += [
            f"| {draft} | {part} | " + " | ".join(f"{s:.3f}" for s in shares) + " |" for draft, shares in drafts.items()
        ]
    return "\n".join(lines)


def comparison_table(results: HeldOutResults) -> str:
    """Markdown: verified tokens per step, accepted tokens and the target's own one."""
    lines = [
        "| text | merged | nodes: mean (max) | rate | single tree | best single | nodes | rate | difference [95 %] |",
        "|---" * 9 + "|",
    ]
    for row in results.comparisons:
        d = row.difference
        lines.append(
            f"| {row.part} | {len(row.merged.drafts)} x {shape(row.merged.expansion)} "
            f"| {row.merged_nodes:.1f} ({row.merged.max_nodes}) | {row.merged_rate:.2f} "
            f"| {row.rule} | {row.single.drafts[0]} {shape(row.single.expansion)} | {num_nodes(row.single.expansion)} "
            f"| {row.single_rate:.2f} | {d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}] |"
        )
    return "\n".join(lines)


def shape(expansion: Expansion) -> str:
    """<k1,k2,...>."""
    return f"<{','.join(map(str, expansion))}>"
