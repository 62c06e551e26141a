"""What serving a scenario showed: counts and times as they were measured. Torch-free.

Legend: D depths, index 0 for the root's children; K ranks of proposals below a node, best first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from treespec.metrics.cost import CostModel

# What may differ between two scenarios whose times are compared: the way of drafting, and what no time depends on.
_OF_DRAFTING = ("name", "mode", "expansion", "drafters", "verifier", "tree_layout", "num_repeats")
_OF_NO_TIME = ("name", "drafts", "plugins", "max_tree_nodes", "converted_models", "measure_costs")
_OF_MACHINE = ("device", "cpu", "num_threads")


@dataclass(frozen=True)
class RequestCounts:
    """One request of one pass."""

    repeat: int
    prompt_index: int
    ms_per_token: float
    num_output_tokens: int
    num_decoding_steps: int
    num_draft_tokens: int
    offered: Sequence[Sequence[int]]  # [D][K]: steps that reached a node of this depth with such a proposal below it
    accepted: Sequence[Sequence[int]]  # of these, the ones that accepted it


@dataclass(frozen=True)
class Observed:
    """A scenario as it was served."""

    name: str
    scenario: Mapping[str, Any]  # its configuration, as records hold it
    placement: Mapping[str, Any]
    machine: Mapping[str, Any]
    requests: tuple[RequestCounts, ...]
    part_us: Mapping[str, int]  # draft, build, forward, verify, commit, other
    num_target_steps: int  # batched passes
    costs: Mapping[int, CostModel]  # by draft model, where they were measured

    @property
    def batch_size(self) -> int:
        """Requests per batch."""
        return int(self.scenario["max_requests_per_batch"])

    @property
    def drafting(self) -> Sequence[Mapping[str, Any]]:
        """Who drafts, the short form spelled out; empty: incremental decoding."""
        if expansion := self.scenario["expansion"]:
            return [{"kind": "ssm", "model": 0, "tree": "expansion", "expansion": expansion}]
        return list(self.scenario["drafters"])

    @property
    def speculates(self) -> bool:
        """Whether anything is drafted."""
        return bool(self.drafting)

    @cached_property
    def conditions(self) -> str:
        """Equal where two scenarios' times may be compared."""
        return self._key(_OF_DRAFTING)

    @cached_property
    def pair(self) -> str:
        """Equal where two scenarios differ in batch size and in the shape of one draft model's trees alone."""
        drafter = self.drafting[0]
        others = tuple(name for name in _OF_DRAFTING if name != "verifier")
        of_batch = ("max_requests_per_batch", "max_tokens_per_batch")
        drafting = [self.placement["drafts"], drafter["model"], drafter.get("selection", "top_k")]
        return self._key((*others, *of_batch), drafting=drafting)

    @property
    def drafts_with_one_model(self) -> bool:
        """Whether one draft model drafts alone, and its trees are verified as trees."""
        is_tree = self.scenario.get("tree_layout", "tree") == "tree"
        return is_tree and len(self.drafting) == 1 and self.drafting[0]["kind"] == "ssm"

    def _key(self, left_out: Sequence[str], **more: Any) -> str:
        scenario = {name: value for name, value in self.scenario.items() if name not in left_out}
        placement = {name: value for name, value in self.placement.items() if name not in _OF_NO_TIME}
        machine = {name: self.machine.get(name) for name in _OF_MACHINE}
        return json.dumps([scenario, placement, machine, more], sort_keys=True)

    @property
    def tokens_per_step(self) -> float:
        """Emitted per decoding step of a request."""
        steps = sum(request.num_decoding_steps for request in self.requests)
        return sum(request.num_output_tokens for request in self.requests) / max(1, steps)

    @property
    def nodes_per_step(self) -> float:
        """Mean size of a request's trees, root included."""
        steps = sum(request.num_decoding_steps for request in self.requests)
        return 1 + sum(request.num_draft_tokens for request in self.requests) / max(1, steps)

    @cached_property
    def offered_counts(self) -> np.ndarray:
        """Int64 ``[D, K]``, all requests together."""
        return _summed([request.offered for request in self.requests])

    @cached_property
    def accepted_counts(self) -> np.ndarray:
        """Int64 ``[D, K]``, all requests together."""
        return _summed([request.accepted for request in self.requests])

    @property
    def shares(self) -> dict[str, float]:
        """Every part's share of the time."""
        total = sum(self.part_us.values())
        return {part: us / total if total else 0.0 for part, us in self.part_us.items()}

    def part_ms_per_step(self, part: str) -> float:
        """Milliseconds of a part per batched pass of the target."""
        return self.part_us.get(part, 0) / 1000 / max(1, self.num_target_steps)


def _summed(tables: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    depth = max((len(table) for table in tables), default=0)
    width = max((len(row) for table in tables for row in table), default=0)
    total_DK = np.zeros((depth, width), dtype=np.int64)
    for table in tables:
        for d, row in enumerate(table):
            total_DK[d, : len(row)] += np.asarray(row, dtype=np.int64)
    return total_DK
