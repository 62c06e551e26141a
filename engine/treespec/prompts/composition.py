"""Which prompt each request of a pass serves."""

from __future__ import annotations

from treespec.config import Scenario


def prompt_indices(scenario: Scenario, num_prompts: int) -> list[int]:
    """The prompt of every request, in order of arrival.

    Mixed: each prompt once. Repeated: each prompt once per place in the batch, one after the other, as in the
    artifact's files of every batch size; a batch then holds equal requests.
    """
    num_copies = scenario.max_requests_per_batch if scenario.batch_composition == "repeated" else 1
    return [index for index in range(num_prompts) for _ in range(num_copies)]
