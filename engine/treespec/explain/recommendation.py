"""One sentence: how to decode, up to which batch size, and why not further. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from treespec.explain.prediction import Obstacle, Outlook
from treespec.metrics.cost import CostModel


def recommendation(outlooks: Sequence[Outlook], cost: CostModel) -> str:
    """From the best speculation at every batch size, ascending; the numbers in it are the model's predictions."""
    paying = [outlook for outlook in outlooks if outlook.pays]
    if not paying:
        first = outlooks[0]
        return (
            f"Decode incrementally: speculation does not pay at {_batch_sizes(outlooks)}, because "
            f"{_because(first, cost)}."
        )
    first = paying[0]
    head = (
        f"Speculate at {_batch_sizes(paying)}, at {first.batch_size} with {described_tree(first)} "
        f"({drafter_words(first)}), predicted to be {first.speedup:.2f} times as fast as incremental decoding"
    )
    beyond = next((o for o in outlooks if not o.pays and o.batch_size > paying[-1].batch_size), None)
    before = next((o for o in outlooks if not o.pays and o.batch_size < first.batch_size), None)
    refused = beyond or before
    if refused is None:
        return f"{head}."
    return f"{head}; at batch size {refused.batch_size} {_because(refused, cost)}."


def described_tree(outlook: Outlook) -> str:
    """Its shape in words."""
    if outlook.is_chain:
        return f"a sequence of {_counted(outlook.depth, 'token')}"
    return f"a tree of {outlook.num_nodes - 1} nodes, {outlook.depth} deep"


def drafter_words(outlook: Outlook) -> str:
    """What to write into a scenario for it."""
    if outlook.is_chain:
        return f"expansion: [{', '.join('1' * outlook.depth)}]"
    return f"tree: best, num_nodes: {outlook.num_nodes - 1}, max_depth: {outlook.depth}"


def _because(outlook: Outlook, cost: CostModel) -> str:
    B = outlook.batch_size
    plain_ms = float(cost.step_ms(B, 1, [0]))
    match outlook.obstacle:
        case Obstacle.DRAFT:
            level = float(cost.draft_level.at(B)) / plain_ms
            return f"the draft is too dear: one of its passes takes {level:.2f} of the target's"
        case Obstacle.VERIFICATION:
            nodes = float(cost.target.at(B * outlook.num_nodes)) / plain_ms
            return (
                f"verification is too dear: {outlook.num_nodes} rows per request take {nodes:.2f} times as long as one"
            )
        case _:
            return (
                f"acceptance is too low: the best tree emits {outlook.tokens_per_step:.2f} tokens per step, "
                f"which takes {outlook.step_ratio:.2f} times as long"
            )


def _batch_sizes(outlooks: Sequence[Outlook]) -> str:
    sizes = [outlook.batch_size for outlook in outlooks]
    if len(sizes) == 1:
        return f"batch size {sizes[0]}"
    if sizes == list(range(sizes[0], sizes[-1] + 1)):
        return f"batch sizes {sizes[0]} to {sizes[-1]}"
    return f"batch sizes {', '.join(map(str, sizes))}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
