"""Forward passes: the only place that calls a decoder."""

from treespec.model.decoder import Wanted
from treespec.runner.batch import ForwardRow, Stripes
from treespec.runner.runner import ModelRunner, RunHandle, RunResult, cache_shape

__all__ = ["ForwardRow", "ModelRunner", "RunHandle", "RunResult", "Stripes", "Wanted", "cache_shape"]
