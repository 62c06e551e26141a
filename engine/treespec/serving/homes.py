"""Where draft models live (SpecInfer, figure 6): which ranks own which of them."""

from __future__ import annotations

from collections.abc import Sequence

from treespec.config import Placement, Scenario
from treespec.parallel.mesh import ParallelMesh
from treespec.runner.commands import TARGET


def used_drafts(scenarios: Sequence[Scenario]) -> list[int]:
    """Places in the placement of the draft models that the scenarios draft with."""
    return sorted({model for scenario in scenarios for model in scenario.draft_models})


def draft_owners(placement: Placement, mesh: ParallelMesh, draft: int) -> tuple[int, ...]:
    """The ranks that hold a draft model, each of them for a share of the requests.

    Models with a rank of their own come after the driver, which has the verification to do.
    """
    match placement.draft_placement:
        case "driver":
            return (mesh.driver,)
        case "own_ranks":
            return ((mesh.driver + 1 + draft) % mesh.num_ranks,)
        case "replicated":
            return tuple(range(mesh.num_ranks))


def draft_number(draft: int) -> int:
    """What commands call a draft model."""
    return TARGET + 1 + draft
