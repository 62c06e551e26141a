"""How a draft model's trees are shaped: from the configuration's word to a rule, with what the rule has to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treespec.config import Scenario, SsmDrafting
from treespec.draft.auto_policy import AutoPolicy
from treespec.draft.dynamic import ConfidenceRule
from treespec.draft.growth import FixedTopology, GrowthRule
from treespec.draft.policy import BestTreePolicy, PolicyRule
from treespec.metrics.cost import CostModel
from treespec.runner import ModelRunner
from treespec.serving.calibration import measure_cost
from treespec.tree import Topology


class Shapes:
    """The rules of a placement's scenarios. What a rule has learnt stays from one pass of a scenario to the next."""

    def __init__(self, target: ModelRunner, drafts: Mapping[int, ModelRunner], scenarios: Sequence[Scenario]) -> None:
        """Measures what passes cost where a scenario asks for it; the runners must be idle."""
        self._costs: dict[int, CostModel] = {}
        for model, max_nodes in _largest_auto_trees(scenarios).items():
            self._costs[model] = measure_cost(target, drafts[model], max_nodes)
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


def _largest_auto_trees(scenarios: Sequence[Scenario]) -> dict[int, int]:
    """Draft model -> nodes, root included, of the largest tree that a scenario may choose for it."""
    largest: dict[int, int] = {}
    for scenario in scenarios:
        for drafting in scenario.drafting:
            if isinstance(drafting, SsmDrafting) and drafting.tree == "auto":
                largest[drafting.model] = max(largest.get(drafting.model, 0), drafting.num_nodes + 1)
    return largest
