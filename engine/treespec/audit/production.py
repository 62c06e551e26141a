"""Whether the real engine, serving real models, emits tokens with the target's probabilities.

Legend: R prefixes, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from treespec.audit.statistics import MIN_DRAWS, Counts, Fit, chi_square_fit
from treespec.config import Sampling, Scenario
from treespec.ops.sampling import distributions
from treespec.runner import ForwardRow, ModelRunner
from treespec.serving.build import LoadedPlacement

NUM_TESTED = 3  # the prompt's own step emits the first token; the next two are the first that a tree is verified for

Prefix = tuple[int, ...]


def production_fit(loaded: LoadedPlacement, scenario: Scenario, prompt: Sequence[int], num_requests: int) -> Fit:
    """Serve one prompt as many requests, each with chance of its own, and test the tokens after the prompt.

    ``scenario`` generates at least ``NUM_TESTED`` tokens, a few more so that the first tree has its full depth.
    The target's probabilities come from the plain path, teacher-forced.
    """
    assert scenario.max_new_tokens >= NUM_TESTED and scenario.ignore_eos
    requests = [loaded.request(scenario, request_id, prompt) for request_id in range(num_requests)]
    engine = loaded.engine(scenario)
    engine.add(requests)
    engine.run()
    outputs = [tuple(request.output_token_ids[:NUM_TESTED]) for request in requests]
    return chi_square_fit(_contexts(loaded.target_runner, scenario.sampling, prompt, outputs))


def _contexts(
    runner: ModelRunner, sampling: Sampling, prompt: Sequence[int], outputs: Sequence[Prefix]
) -> Iterator[Counts]:
    """Per prefix that came often enough: the tokens that followed it, beside the target's probabilities."""
    followers: dict[Prefix, Counter[int]] = {}
    for output in outputs:
        for length, token_id in enumerate(output):
            followers.setdefault(output[:length], Counter())[token_id] += 1
    frequent = [prefix for prefix, counts in followers.items() if counts.total() >= MIN_DRAWS]
    batch_size = runner.allocator.num_free_regions
    for start in range(0, len(frequent), batch_size):
        prefixes = frequent[start : start + batch_size]
        logits_RV = plain_logits(runner, [[*prompt, *prefix] for prefix in prefixes])
        for prefix, p_V in zip(prefixes, distributions(logits_RV, [sampling] * len(prefixes)), strict=True):
            yield _counts(followers[prefix], p_V)


def _counts(followers: Counter[int], p_V: Tensor) -> Counts:
    observed_V = torch.zeros(len(p_V), dtype=torch.float64)
    observed_V[list(followers)] = torch.tensor(list(followers.values()), dtype=torch.float64)
    return Counts(observed_V, p_V.double().cpu() * followers.total())


def plain_logits(runner: ModelRunner, sequences: Sequence[Sequence[int]]) -> Tensor:
    """``[R, V]`` after each sequence, run from nothing without any tree; leaves the cache as it was."""
    regions = [runner.allocator.admit() for _ in sequences]
    rows = [
        ForwardRow(
            lease=runner.allocator.lease(region, len(sequence)),
            token_ids=np.asarray(sequence, dtype=np.int64),
            positions=np.arange(len(sequence), dtype=np.int64),
            visible=np.tri(len(sequence), dtype=bool),
            num_logits=1,
        )
        for region, sequence in zip(regions, sequences, strict=True)
    ]
    logits_RV = runner.result(runner.submit(rows)).logits_RV
    runner.commit([(region, []) for region in regions])
    for region in regions:
        runner.allocator.free(region)
    return logits_RV
