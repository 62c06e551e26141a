"""treespec: lossless tree-based speculative inference for PyTorch."""

__version__ = "0.1.0"
