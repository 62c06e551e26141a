"""Verifiers: which proposed tokens the target accepts."""

from treespec.registry import Registry
from treespec.tree import Contract
from treespec.verify.block import BlockVerifier
from treespec.verify.greedy import GreedyVerifier
from treespec.verify.protocol import Verifier, VerifyResult, require_lossless
from treespec.verify.recursive import RecursiveRejectionVerifier
from treespec.verify.sampler_match import SamplerMatchVerifier
from treespec.verify.traversal import TraversalVerifier


def verifiers() -> Registry[Verifier]:
    """A table of the verifiers that come with the engine; the caller may add to its copy."""
    return Registry(
        "verifier",
        {
            "greedy": GreedyVerifier(),
            "sampler_match": SamplerMatchVerifier(),
            "token_rejection": RecursiveRejectionVerifier(chains_only=True),
            "mss": RecursiveRejectionVerifier(frozenset({Contract.IID})),
            "recursive_rejection": RecursiveRejectionVerifier(),
            "block": BlockVerifier(),
            "traversal": TraversalVerifier(),
        },
    )


__all__ = [
    "BlockVerifier",
    "GreedyVerifier",
    "RecursiveRejectionVerifier",
    "SamplerMatchVerifier",
    "TraversalVerifier",
    "Verifier",
    "VerifyResult",
    "require_lossless",
    "verifiers",
]
