"""Token trees and the proposals they carry; torch-free."""

from treespec.tree.proposals import Contract, Proposals
from treespec.tree.token_tree import TokenTree, TreeBuilder
from treespec.tree.topology import Topology

__all__ = ["Contract", "Proposals", "TokenTree", "Topology", "TreeBuilder"]
