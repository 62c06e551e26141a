"""Forward passes: the only place that calls a decoder."""

from treespec.runner.batch import ForwardRow
from treespec.runner.runner import ModelRunner, RunHandle, RunResult, cache_shape

__all__ = ["ForwardRow", "ModelRunner", "RunHandle", "RunResult", "cache_shape"]
