"""How a draft model's trees are shaped: from the configuration's word to a rule, with what the rule has to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treespec.config import Scenario, SsmDrafting
from treespec.draft.auto_policy import AutoPolicy
from treespec.draft.dynamic import ConfidenceRule
from treespec.draft.growth import FixedTopology, GrowthRule
from treespec.draft.policy import BestTreePolicy, PolicyRule
from treespec.kvcache.allocator import SlotAllocator
from treespec.metrics.cost import CostModel
from treespec.runner import ModelRunner
from treespec.serving.calibration import measure_cost
from treespec.tree import Topology

MIN_COST_ROWS = 64  # where costs are measured for the record: readers ask about other trees and batches, too


class Shapes:
    """The rules of a placement's scenarios. What a rule has learnt stays from one pass of a scenario to the next."""

    def __init__(
        self,
        target: ModelRunner,
        drafts: Mapping[int, ModelRunner],
        scenarios: Sequence[Scenario],
        *,
        measure_costs: bool = False,
    ) -> None:
        """Measures what passes cost where a scenario needs it, or with every draft model; the runners must be idle."""
        largest = _largest_trees(scenarios, target.allocator) if measure_costs else _largest_auto_trees(scenarios)
        self._costs = {model: measure_cost(target, drafts[model], size) for model, size in largest.items()}
        self._rules: dict[tuple[str, SsmDrafting], GrowthRule] = {}

    @property
    def costs(self) -> Mapping[int, CostModel]:
        """What was measured, by draft model."""
        return self._costs

    def rule(self, scenario: Scenario, drafting: SsmDrafting) -> GrowthRule:
        """The rule of one drafter of a scenario."""
        key = scenario.name, drafting
        if key not in self._rules:
            self._rules[key] = self._make(drafting)
        return self._rules[key]

    def _make(self, drafting: SsmDrafting) -> GrowthRule:
        num_nodes, depth = drafting.num_nodes + 1, drafting.max_depth  # the policies count the root
        match drafting.tree:
            case "expansion":
                return FixedTopology(Topology.from_expansion(drafting.expansion))
            case "best":
                return PolicyRule(BestTreePolicy(num_nodes, depth))
            case "dynamic":
                return ConfidenceRule(num_nodes, depth, drafting.width)
            case "auto":
                return PolicyRule(AutoPolicy(self._costs[drafting.model], num_nodes, depth))


def _largest_trees(scenarios: Sequence[Scenario], allocator: SlotAllocator) -> dict[int, int]:
    """Draft model -> most tokens per request of the target's passes that it drafts for; a short curve is prolonged."""
    shortest = -(-MIN_COST_ROWS // allocator.num_regions)
    largest: dict[int, int] = {}
    for scenario in scenarios:
        for model in scenario.draft_models:
            largest[model] = max(largest.get(model, shortest), scenario.num_target_slots)
    return {model: min(size, allocator.region_capacity - 1) for model, size in largest.items()}


def _largest_auto_trees(scenarios: Sequence[Scenario]) -> dict[int, int]:
    """Draft model -> nodes, root included, of the largest tree that a scenario may choose for it."""
    largest: dict[int, int] = {}
    for scenario in scenarios:
        for drafting in scenario.drafting:
            if isinstance(drafting, SsmDrafting) and drafting.tree == "auto":
                largest[drafting.model] = max(largest.get(drafting.model, 0), drafting.num_nodes + 1)
    return largest
