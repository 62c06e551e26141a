"""Serving a list of prompts once, and the order in which settings that are compared take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treespec.config import Scenario
from treespec.metrics.counts import PassProfile, RequestProfile
from treespec.prompts import prompt_indices
from treespec.request import Request
from treespec.serving.build import LoadedPlacement

WARM_UP_TOKENS = 8

_SPECULATION = {"name", "mode", "expansion", "drafters", "verifier", "tree_layout"}


@dataclass(frozen=True)
class ServedPass:
    """One scenario served once: requests in order of arrival, finished, each with the prompt it had."""

    requests: tuple[Request, ...]
    prompt_indices: tuple[int, ...]
    profiles: tuple[RequestProfile, ...]
    totals: PassProfile


def serve_pass(loaded: LoadedPlacement, scenario: Scenario, prompts: Sequence[Sequence[int]]) -> ServedPass:
    """Serve all prompts with a fresh engine over the placement's models."""
    indices = prompt_indices(scenario, len(prompts))
    requests = [loaded.request(scenario, number, prompts[index]) for number, index in enumerate(indices)]
    engine = loaded.engine(scenario)
    engine.add(requests)
    for count in (loaded.traffic, loaded.offload_counts):
        count()  # of whatever was before, a pass that broke off included
    totals = engine.run()
    totals.traffic, totals.offload = loaded.traffic(), loaded.offload_counts()
    profiles = tuple(engine.profiles[request.request_id] for request in requests)
    return ServedPass(tuple(requests), tuple(indices), profiles, totals)


def warm_up(loaded: LoadedPlacement, scenario: Scenario, prompts: Sequence[Sequence[int]]) -> None:
    """Serve one batch for a few tokens, so that no measured pass pays for first uses."""
    short = scenario.model_copy(update={"max_new_tokens": min(WARM_UP_TOKENS, scenario.max_new_tokens)})
    first_batch = set(prompt_indices(scenario, len(prompts))[: scenario.max_requests_per_batch])
    serve_pass(loaded, short, prompts[: len(first_batch)])


def comparison_groups(scenarios: Sequence[Scenario]) -> list[list[Scenario]]:
    """Scenarios that differ in nothing but how they speculate, in the order of their first member."""
    groups: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
        key = scenario.model_dump_json(exclude=_SPECULATION)
        groups.setdefault(key, []).append(scenario)
    return list(groups.values())


def interleaved(group: Sequence[Scenario]) -> Iterator[tuple[int, Scenario]]:
    """(repeat, scenario): every repeat serves every scenario once, each time beginning with another one.

    A machine that drifts during the run then slows all of them alike.
    """
    for repeat in range(max(scenario.num_repeats for scenario in group)):
        shift = repeat % len(group)
        for scenario in [*group[shift:], *group[:shift]]:
            if repeat < scenario.num_repeats:
                yield repeat, scenario
