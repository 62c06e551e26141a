"""What boost-tuning brings on held-out prompts: comparisons at unequal and at equal numbers of nodes, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from treespec.tuning.boost.evaluate import (
    Estimate,
    Expansion,
    Speculation,
    TargetText,
    best_single,
    expansions_within,
    mean_merged_nodes,
    rate,
    rate_difference,
    target_text,
)
from treespec.tuning.boost.samples import Continuations, token_ranks

PARTS = {"whole": False, "before loop": True}  # part of the text: only up to its first repeated 8-gram?
MERGED_EXPANSIONS: tuple[Expansion, ...] = ((1,) * 4, (1,) * 8, (2, 1, 1, 1))
MAX_RANK = 5


@dataclass(frozen=True)
class Comparison:
    """Merged drafts against the best single draft under one rule for its tree, or against other merged drafts."""

    part: str
    rule: str
    merged: Speculation
    merged_nodes: float  # on average
    merged_rate: float  # tokens per step
    rival: Speculation
    rival_rate: float
    difference: Estimate

    def as_json(self) -> dict[str, Any]:
        """All of it, with the most nodes of both."""
        return asdict(self) | {"rival_max_nodes": self.rival.max_nodes, "merged_max_nodes": self.merged.max_nodes}


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
    others: Sequence[str] = (),
    expansions: Sequence[Expansion] = MERGED_EXPANSIONS,
) -> HeldOutResults:
    """Compare the drafts ``merged`` with the single ones of ``networks``, any of which may be the best.

    ``others`` are drafts that, merged, are one rival more.
    """
    ranks_RT = {name: token_ranks(network, continuations) for name, network in networks.items()}
    texts = {part: target_text(ranks_RT, continuations, before_loop=cut) for part, cut in PARTS.items()}
    top_k = {part: _agreement(text, list(networks)) for part, text in texts.items()}
    comparisons = []
    for expansion in expansions:
        speculation = Speculation(tuple(merged), expansion)
        nodes = mean_merged_nodes(networks, continuations, texts["whole"], speculation)
        for part, text in texts.items():
            rivals = best_singles(text, speculation, nodes, list(networks))
            if others:
                rivals["other drafts"] = Speculation(tuple(others), expansion)
            comparisons += [_compare(part, text, rule, speculation, nodes, rival) for rule, rival in rivals.items()]
    return HeldOutResults(len(continuations), top_k, comparisons)


def _compare(
    part: str, text: TargetText, rule: str, merged: Speculation, merged_nodes: float, rival: Speculation
) -> Comparison:
    merged_R2, rival_R2 = merged.counts(text), rival.counts(text)
    difference = rate_difference(merged_R2, rival_R2)
    return Comparison(part, rule, merged, merged_nodes, rate(merged_R2), rival, rate(rival_R2), difference)


def best_singles(
    text: TargetText, merged: Speculation, merged_nodes: float, drafts: Sequence[str]
) -> dict[str, Speculation]:
    """Rule -> the best single draft and tree that it allows."""
    trees = single_trees(merged, merged_nodes)
    return {rule: best_single(text, drafts, expansions) for rule, expansions in trees.items()}


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
        "| text | merged | nodes: mean (max) | rate | against | drafts | nodes (max) | rate | difference [95 %] |",
        "|---" * 9 + "|",
    ]
    for row in results.comparisons:
        d = row.difference
        lines.append(
            f"| {row.part} | {len(row.merged.drafts)} x {shape(row.merged.expansion)} "
            f"| {row.merged_nodes:.1f} ({row.merged.max_nodes}) | {row.merged_rate:.2f} "
            f"| {row.rule} | {' + '.join(row.rival.drafts)} {shape(row.rival.expansion)} | {row.rival.max_nodes} "
            f"| {row.rival_rate:.2f} | {d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}] |"
        )
    return "\n".join(lines)


def shape(expansion: Expansion) -> str:
    """<k1,k2,...>."""
    return f"<{','.join(map(str, expansion))}>"
