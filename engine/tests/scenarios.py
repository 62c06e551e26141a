"""Scenarios over a pair on disk, built from the configuration as a run builds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.tests.decoding import Pair
from treespec.config import validate_run_config
from treespec.serving.build import load_placement
from treespec.serving.passes import ServedPass, serve_pass

Drafters = list[dict[str, Any]]
TREE = {"kind": "ssm", "expansion": [2, 2, 1]}
CHAIN = {"kind": "ssm", "expansion": [1, 1, 1, 1]}

DRAFTERS: dict[str, Drafters] = {
    "chain": [CHAIN],
    "tree": [TREE],
    "chain-drawn": [CHAIN | {"selection": "iid"}],
    "tree-iid": [TREE | {"selection": "iid"}],
    "tree-without-replacement": [TREE | {"selection": "without_replacement"}],
    "best": [{"kind": "ssm", "tree": "best", "num_nodes": 10, "max_depth": 4}],
    "dynamic": [{"kind": "ssm", "tree": "dynamic", "num_nodes": 9, "max_depth": 4, "width": 3}],
    "auto": [{"kind": "ssm", "tree": "auto", "num_nodes": 8, "max_depth": 4}],
    "ngram": [{"kind": "ngram", "num_tokens": 4}],
    "suffix": [{"kind": "suffix", "num_nodes": 6, "max_match": 4}],
    "two-models": [TREE, CHAIN | {"model": 1}],
    "two-models-drawn": [TREE | {"selection": "iid"}, TREE | {"selection": "iid", "model": 1}],
    "portfolio": [TREE, {"kind": "ngram", "num_tokens": 3}, {"kind": "suffix", "num_nodes": 5}],
}
CHAINS = ("chain", "chain-drawn", "ngram")


def scenario(name: str, drafters: str | None = None, **settings: Any) -> dict[str, Any]:
    """A scenario's data; without drafters incremental decoding."""
    mode = "incremental" if drafters is None else "sequence" if drafters in CHAINS else "tree"
    defaults = {"max_requests_per_batch": 3, "max_new_tokens": 20, "ignore_eos": True, "prompts": "unused.json"}
    return {"name": name, "mode": mode, "drafters": DRAFTERS[drafters] if drafters else []} | defaults | settings


class Bench:
    """A loaded pair that serves its scenarios by name; draft model 0 is the pair's, 1 the target itself."""

    def __init__(
        self, target: Path, drafts: Sequence[Path], scenarios: Sequence[dict[str, Any]], **placement: Any
    ) -> None:
        defaults = {"name": "tests", "num_threads": 1, "max_sequence_length": 100, "max_tree_nodes": 40}
        models = {"target": {"path": str(target)}, "drafts": [{"path": str(draft)} for draft in drafts]}
        data = {"placement": defaults | models | placement, "scenarios": list(scenarios)}
        config = validate_run_config(data, "a test")
        self.loaded = load_placement(config.placement, config.scenarios)
        self._scenarios = {item.name: item for item in config.scenarios}

    @classmethod
    def of(cls, pair: Pair, scenarios: Sequence[dict[str, Any]], **placement: Any) -> Bench:
        """Over a pair."""
        return cls(pair.target_folder, [pair.draft_folder, pair.target_folder], scenarios, **placement)

    def serve(self, name: str, prompts: Sequence[Sequence[int]], **changes: Any) -> ServedPass:
        """One pass."""
        return serve_pass(self.loaded, self._scenarios[name].model_copy(update=changes), prompts)

    def token_ids(self, name: str, prompts: Sequence[Sequence[int]], **changes: Any) -> list[list[int]]:
        """What one pass generates, request by request."""
        return [request.output_token_ids for request in self.serve(name, prompts, **changes).requests]
