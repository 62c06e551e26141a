"""Verifiers: which proposed tokens the target accepts."""

from treespec.verify.greedy import GreedyVerifier
from treespec.verify.protocol import Verifier, VerifyResult

__all__ = ["GreedyVerifier", "Verifier", "VerifyResult"]
