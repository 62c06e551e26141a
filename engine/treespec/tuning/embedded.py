"""Make an embedded pair from nothing: tokenizer, target, draft; resumable phase by phase.

``python -m treespec.tuning --family llama --work-dir build/tuning``
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from treespec.tuning import phases
from treespec.tuning.corpus import SourceFile, TokenStreams, standard_library_sources, train_tokenizer
from treespec.tuning.networks import new_network
from treespec.tuning.prompt_sets import held_out_prompts
from treespec.tuning.publish import ROLES, publish_pair, publish_prompts
from treespec.tuning.recipes import RECIPES, VOCAB_SIZE, ModelShape

PHASES = ("target_ce", "target", "draft_undistilled", "draft")


class PairTraining:
    """Trains one family; every finished phase is a file, so a killed run goes on with the next phase."""

    def __init__(self, family: str, work_dir: Path, log: phases.Log) -> None:
        self.recipe = RECIPES[family]
        self.work_dir = work_dir / family
        self.log = log
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.sources = standard_library_sources()
        self.tokenizer = self._tokenizer(self.sources)
        log(f"corpus: {len(self.sources)} files; encoding")
        self.streams = TokenStreams.encode(self.tokenizer, self.sources)
        log(
            f"tokens: library {len(self.streams.library)}, tests {len(self.streams.tests)}, "
            f"held out {len(self.streams.held_out)}"
        )

    @property
    def tokenizer_file(self) -> Path:
        """One tokenizer for all families."""
        return self.work_dir.parent / "tokenizer.json"

    def _tokenizer(self, sources: list[SourceFile]) -> Tokenizer:
        if not self.tokenizer_file.exists():
            train_tokenizer(sources, VOCAB_SIZE).save(str(self.tokenizer_file))
        return Tokenizer.from_file(str(self.tokenizer_file))

    def run(self) -> None:
        """Train whatever is not yet trained."""
        recipe, streams = self.recipe, self.streams
        target = self._network(recipe.target, salt=1)
        self._phase(
            "target_ce",
            target,
            lambda: phases.train_cross_entropy("target ce", target, recipe, recipe.target_ce, streams, self.log, 10),
        )
        self._phase("target", target, lambda: phases.train_unlikelihood(target, recipe, streams, self.log, 20))
        draft = self._network(recipe.draft, salt=2)
        self._phase(
            "draft_undistilled",
            draft,
            lambda: phases.train_cross_entropy("draft ce", draft, recipe, recipe.draft_ce, streams, self.log, 30),
        )
        self._phase(
            "draft",
            draft,
            lambda: phases.train_distillation(draft, target, recipe, streams, self.log, 40),
        )

    def publish(self, models_dir: Path, prompts_dir: Path) -> None:
        """Write the trained pair and the prompts for use."""
        prompts = held_out_prompts(self.sources, self.tokenizer)
        publish_prompts(prompts, prompts_dir)
        networks, logs = {}, {}
        for name in PHASES:
            record = self.work_dir / f"{name}.json"
            logs[name] = json.loads(record.read_text(encoding="utf-8"))
            if name in ROLES:
                shape = self.recipe.target if name == "target" else self.recipe.draft
                networks[name] = new_network(self.recipe.family, shape)
                networks[name].load_state_dict(torch.load(self.work_dir / f"{name}.pt", weights_only=True))
        folder = models_dir / self.recipe.family
        publish_pair(networks, self.recipe, logs, self.tokenizer_file, self.sources, self.streams, folder, self.log)

    def _network(self, shape: ModelShape, salt: int) -> nn.Module:
        torch.manual_seed(self.recipe.seed + salt)
        return new_network(self.recipe.family, shape)

    def _phase(self, name: str, network: nn.Module, train: Callable[[], phases.PhaseLog]) -> None:
        weights, record = self.work_dir / f"{name}.pt", self.work_dir / f"{name}.json"
        if not record.exists():
            log = train()
            torch.save(network.state_dict(), weights.with_suffix(".tmp"))
            weights.with_suffix(".tmp").rename(weights)
            record.write_text(json.dumps(asdict(log), indent=1), encoding="utf-8")
        network.load_state_dict(torch.load(weights, weights_only=True))
