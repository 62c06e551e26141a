"""All four phases of the training, a few steps each, and the folder that the engine then loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.tests.decoding import WIDE_TREE, Serving, load, serve
from model_store.embedded import verify
from treespec.config import ModelRef
from treespec.model.loader import open_model, require_same_vocabulary
from treespec.serving.prompts import read_prompt_file
from treespec.tuning import embedded as training
from treespec.tuning import prompt_sets
from treespec.tuning.corpus import SourceFile, standard_library_sources
from treespec.tuning.recipes import RECIPES, ModelShape, Phase

TINY_RECIPE = replace(
    RECIPES["llama"],
    target=ModelShape(32, 64, 2, 2),
    draft=ModelShape(16, 32, 1, 2),
    target_ce=Phase(4, 1.0, 0.02, 0.25, 2, 32, long_share=0.5),
    target_unlikelihood=Phase(2, 0.2, 0.02, 0.3, 2, 32),
    draft_ce=Phase(3, 1.0, 0.05, 0.25, 2, 32),
    draft_distil=Phase(4, 1.0, 0.02, 0.3, 2, 32),
    own_text_rows=32,
)


def few_sources() -> list[SourceFile]:
    """Some files of every kind."""
    sources = standard_library_sources()
    kinds = [(held_out, is_test) for held_out in (False, True) for is_test in (False, True)]
    return [s for kind in kinds for s in [s for s in sources if (s.is_held_out, s.is_test) == kind][:12]]


@pytest.mark.slow  # a minute or two: torch.compile builds four graphs
def test_few_steps_of_every_phase_make_a_pair_that_the_engine_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "RECIPES", {"llama": TINY_RECIPE})
    monkeypatch.setattr(training, "standard_library_sources", few_sources)
    monkeypatch.setattr(prompt_sets, "PROMPTS_PER_SET", 3)
    said: list[str] = []
    pair = training.PairTraining("llama", tmp_path / "work", said.append)
    pair.run()
    phases = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "llama").iterdir()}
    assert sorted(phases) == sorted(f"{phase}{suffix}" for phase in training.PHASES for suffix in (".json", ".pt"))
    assert_every_phase_changed_its_weights(tmp_path / "work" / "llama")

    again = training.PairTraining("llama", tmp_path / "work", said.append)
    again.run()
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "llama").iterdir()}
    assert now == phases, "a finished phase was trained again"

    again.publish(tmp_path / "models", tmp_path / "prompts")
    assert_pair_serves(tmp_path / "models" / "llama", tmp_path / "prompts")


def assert_every_phase_changed_its_weights(work_dir: Path) -> None:
    weights = {phase: torch.load(work_dir / f"{phase}.pt", weights_only=True) for phase in training.PHASES}
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights["target"][name], weights["target_ce"][name])
    assert not torch.equal(weights["draft"][name], weights["draft_undistilled"][name])
    for phase in training.PHASES:
        log = json.loads((work_dir / f"{phase}.json").read_text())
        assert log["num_steps"] > 0
        assert log["curve"][-1]["held_out_loss"] < 10


def assert_pair_serves(folder: Path, prompts_dir: Path) -> None:
    target = load(folder / "target")
    prompts = [target.tokenizer.encode(text) for text in read_prompt_file(prompts_dir / "mixed.json")]
    assert len(prompts) == 3
    incremental = serve(target, None, prompts, Serving())
    for role in ("draft", "draft-undistilled"):
        draft = load(folder / role)
        require_same_vocabulary(*(open_model(ModelRef(path=folder / name)) for name in ("target", role)))
        assert serve(target, draft, prompts, Serving(WIDE_TREE)).token_ids == incremental.token_ids
    report = json.loads((folder / "report.json").read_text())
    assert set(report["held_out_loss"]) == {"target", "draft", "draft_undistilled"}
    assert {tensor.dtype for tensor in load_file(folder / "target" / "model.safetensors").values()} == {torch.float16}
    assert verify(folder, prompts_dir, None) == 0
    assert "Held-out loss" in (folder / "README.md").read_text()
