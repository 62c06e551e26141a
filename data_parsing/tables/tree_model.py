"""What a fixed tree should bring, by a model: every proposal is accepted by its rank's rate, whatever came before.

Shape suffixes: K ranks, D depths of the tree.
"""

from __future__ import annotations

import numpy as np

from data_parsing.intervals import Grid
from data_parsing.plans.plan_drafting import Expansion, PlannedDrafting
from data_parsing.records.record_costs import StepCosts


def expected_tokens_per_step(rates_K: Grid, expansion: Expansion, num_tokens: int) -> float:
    """Tokens per decoding step of a request that writes ``num_tokens``, as the engine decodes it.

    A tree's node is accepted with the product of the rates of its ranks, so that depth d is reached with the product
    over its steps of the first k_i rates' sum. The prompt's pass emits the first token and is no decoding step;
    trees are no deeper than the tokens that are still to come, less the target's own.
    """
    assert num_tokens >= 2 and max(expansion) <= len(rates_K)
    level_D = np.array([min(rates_K[:width].sum(), 1.0) for width in expansion])
    reached = np.concatenate([[1.0], np.cumprod(level_D)])
    num_steps = np.zeros(num_tokens)  # by tokens that are still to come
    for remaining in range(1, num_tokens):
        depth = min(len(expansion), remaining - 1)
        # Exactly a tokens are accepted: depth a is reached and the next one, if the tree has it, is not.
        accepted = reached[: depth + 1] - np.append(reached[1 : depth + 1], 0.0)
        num_steps[remaining] = 1 + accepted @ num_steps[remaining - 1 - np.arange(depth + 1)]
    return float((num_tokens - 1) / num_steps[-1])


def expected_speedup(
    tokens_per_step: float, drafting: PlannedDrafting, costs: StepCosts, batch_size: int, *, as_sequences: bool
) -> float:
    """Over incremental decoding: t(B) * tokens per step / time of a step (Sequoia, arXiv 2402.12374, section 3.3).

    The target verifies a request's tree with its root, or ``as_sequences`` every path of it with the root in each; the
    draft runs the root and every level but the last.
    """
    sizes = drafting.level_sizes
    verified = sizes[-1] * (1 + len(sizes)) if as_sequences else 1 + sum(sizes)
    level_rows = [batch_size * size for size in (1, *sizes[:-1])]
    step_ms = costs.step_ms(batch_size * verified, level_rows)
    return float(costs.target.at(batch_size)) * tokens_per_step / step_ms
