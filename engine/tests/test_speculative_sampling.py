"""Naive and multi-step speculative sampling over the same kind of drawn trees, as configuration (table 3)."""

from __future__ import annotations

import pytest

from engine.tests.jobs import JobFolder

EXPANSIONS = {"third": [1, 1, 5, 1, 1, 1, 1, 1], "first": [5, 1, 1, 1, 1, 1, 1, 1], "rank_success": [5, 5]}
VERIFIERS = {"naive": "sampler_match", "multi_step": "mss"}


@pytest.mark.parametrize("place", EXPANSIONS)
def test_both_algorithms_run_over_independently_drawn_trees(job: JobFolder, place: str) -> None:
    expansion = EXPANSIONS[place]
    incremental, tree = job.scenarios[0], job.scenarios[2]
    drafter = {"kind": "ssm", "expansion": expansion, "selection": "iid"}
    sampled = {"sampling": {"temperature": 0.3, "seed": 2}, "num_repeats": 1}
    job.scenarios = [incremental | sampled]
    job.scenarios += [
        tree | sampled | {"name": name, "expansion": [], "drafters": [drafter], "verifier": verifier}
        for name, verifier in VERIFIERS.items()
    ]
    assert job.run() == 0
    plain, naive, multi_step = (job.rows(name) for name in job.names)
    assert [row["output_token_ids"] for row in naive] == [row["output_token_ids"] for row in plain]
    for row in (*naive, *multi_step):
        # A step that reaches a node above the last level offers as many draws as the expansion says.
        for depth, offered in enumerate(row["offered_by_depth_and_rank"]):
            assert offered == [offered[0]] * expansion[depth]
        accepted = row["accepted_by_depth_and_rank"]
        assert sum(map(sum, accepted)) >= row["num_accepted_tokens"]
    for rows in (naive, multi_step):
        by_rank = [row["accepted_by_depth_and_rank"] for row in rows]
        assert sum(sum(map(sum, counts)) for counts in by_rank) > 0, "nothing was accepted"
