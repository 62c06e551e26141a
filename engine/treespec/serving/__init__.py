"""Where drafters, verifiers and the scheduler meet: the engine's step, and the jobs it serves."""

from treespec.serving.engine import Engine

__all__ = ["Engine"]
