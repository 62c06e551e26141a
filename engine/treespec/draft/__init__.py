"""Drafters: who proposes the tokens that the target verifies."""

from treespec.draft.protocol import Drafter, NoDrafter
from treespec.draft.ssm import SsmDrafter

__all__ = ["Drafter", "NoDrafter", "SsmDrafter"]
