"""Drafters: who proposes the tokens that the target verifies."""

from treespec.draft.growth import FixedTopology
from treespec.draft.ngram import NgramDrafter
from treespec.draft.portfolio import PortfolioDrafter
from treespec.draft.protocol import Drafter, DrafterContext, DrafterFactory, NoDrafter
from treespec.draft.selection import SELECTIONS
from treespec.draft.ssm import SsmDrafter
from treespec.draft.suffix import SuffixDrafter

__all__ = [
    "SELECTIONS",
    "Drafter",
    "DrafterContext",
    "DrafterFactory",
    "FixedTopology",
    "NgramDrafter",
    "NoDrafter",
    "PortfolioDrafter",
    "SsmDrafter",
    "SuffixDrafter",
]
