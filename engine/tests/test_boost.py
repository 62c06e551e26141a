"""A boost-tuning run: what each draft is trained on, what resumes, what is refused, and what the command writes."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.tests.boosting import silent
from engine.tests.checkpoints import VARIANTS, text_of, write_checkpoint
from engine.tests.conftest import TinyModels
from engine.tests.decoding import WIDE_TREE, Serving, load, ragged_prompts, serve
from treespec.boost_command import add_boost
from treespec.config import ModelRef
from treespec.errors import CheckpointError, ConfigError, InputFileError, OutputError, PromptError
from treespec.model.loader import open_model, require_same_vocabulary
from treespec.model.tokenizers.text import TextTokenizer
from treespec.tuning.boost import loop
from treespec.tuning.boost.loop import BoostTuning, load_network
from treespec.tuning.boost.samples import matched_samples, real_samples
from treespec.tuning.boost.settings import BoostSettings, require_matching_models
from treespec.tuning.boost.text import given_prompts, library_corpus, read_corpus, require_unseen, window_prompts
from treespec.tuning.boost.training import kept_loss
from treespec.tuning.corpus import standard_library_sources


@pytest.fixture(scope="module")
def settings(tiny: TinyModels) -> BoostSettings:
    """A run of seconds."""
    return BoostSettings(
        tiny.target("gqa"),
        (tiny.draft("gqa"),),
        num_tokens=12,
        sample_tokens=6,
        match_tokens=2,
        num_steps=12,
        batch_rows=4,
        learning_rate=0.002,
    )


TRAINING_PROMPTS = ragged_prompts(seed=5, count=20, longest=10, vocab_size=128)
OTHER_PROMPTS = [ids for ids in ragged_prompts(seed=6, count=9, longest=10, vocab_size=128) if len(ids) > 2]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder, "cpu", torch.float32).state_dict()


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(settings: BoostSettings, tmp_path_factory: pytest.TempPathFactory) -> BoostTuning:
    """A run to the end."""
    tuning = BoostTuning(settings, TRAINING_PROMPTS, tmp_path_factory.mktemp("boost") / "run", silent)
    tuning.run()
    return tuning


def test_each_draft_is_trained_on_what_the_ones_before_do_not_match(finished: BoostTuning) -> None:
    settings = finished.settings
    samples = finished.continuations(TRAINING_PROMPTS)
    left = real_samples(samples, settings.sample_tokens)
    num_samples = left.sum()
    for stage in finished.run():
        assert (stage.num_samples, stage.num_trained) == (num_samples, left.sum())
        draft = load_network(finished.draft_folder(stage.number), "cpu", torch.float32)
        matched = matched_samples(draft, samples, settings.sample_tokens, settings.match_tokens)
        assert stage.num_matched == (matched & left).sum() > 0
        left = left & ~matched
    assert stage.number == 2 and 0 < stage.num_trained < num_samples


def test_training_brings_the_draft_nearer_to_the_target(finished: BoostTuning, tiny: TinyModels) -> None:
    samples = finished.continuations(TRAINING_PROMPTS)
    everything, rows = np.ones_like(samples.live_RT), np.arange(len(samples))
    target = load_network(finished.settings.target, "cpu", torch.float32)
    with torch.no_grad():
        before, after = (
            float(kept_loss(load_network(folder, "cpu", torch.float32), target, samples, rows, everything))
            for folder in (tiny.draft("gqa"), finished.draft_folder(1))
        )
    assert after < 0.8 * before


def test_only_kept_samples_are_trained_on(settings: BoostSettings, tmp_path: Path, monkeypatch: Any) -> None:
    """The tokens whose loss is taken are those of samples that no earlier draft matches."""
    kept: list[np.ndarray] = []
    original = loop.fine_tune

    def spy(draft: Any, target: Any, samples: Any, kept_RS: np.ndarray, *rest: Any) -> Any:
        kept.append(kept_RS)
        return original(draft, target, samples, kept_RS, *rest)

    monkeypatch.setattr(loop, "fine_tune", spy)
    tuning = BoostTuning(replace(settings, num_steps=2), TRAINING_PROMPTS, tmp_path, silent)
    tuning.run()
    samples = tuning.continuations(TRAINING_PROMPTS)
    first = load_network(tuning.draft_folder(1), "cpu", torch.float32)
    matched = matched_samples(first, samples, settings.sample_tokens, settings.match_tokens)
    assert (kept[0] == real_samples(samples, settings.sample_tokens)).all()
    assert (kept[1] == kept[0] & ~matched).all() and (kept[1] != kept[0]).any()


def test_the_control_drops_nothing_and_still_trains_two_drafts(settings: BoostSettings, tmp_path: Path) -> None:
    tuning = BoostTuning(replace(settings, keep_matched=True, num_steps=2), TRAINING_PROMPTS, tmp_path, silent)
    first, second = tuning.run()
    assert first.num_trained == second.num_trained == first.num_samples and first.num_matched > 0
    assert not are_equal(weights_of(tuning.draft_folder(1)), weights_of(tuning.draft_folder(2)))


def test_a_rerun_trains_only_what_is_missing_and_trains_it_the_same(finished: BoostTuning, tmp_path: Path) -> None:
    folders = [finished.draft_folder(number) for number in (1, 2)]
    weights = [weights_of(folder) for folder in folders]
    first = (folders[0] / "model.safetensors").stat().st_mtime_ns
    folders[1].rename(tmp_path / "gone")
    (finished.output_dir / ".draft-2.1.tmp").mkdir()
    again = BoostTuning(finished.settings, TRAINING_PROMPTS, finished.output_dir, silent)
    assert [stage.number for stage in again.run()] == [1, 2]
    assert (folders[0] / "model.safetensors").stat().st_mtime_ns == first
    assert are_equal(weights_of(folders[1]), weights[1])
    assert not list(finished.output_dir.glob(".*"))


def test_another_run_is_not_mixed_into_a_folder(finished: BoostTuning) -> None:
    for change in ({"seed": 1}, {"match_tokens": 1}, {"loss": "ce"}):
        other = BoostTuning(replace(finished.settings, **change), TRAINING_PROMPTS, finished.output_dir, silent)
        with pytest.raises(OutputError, match="other settings"):
            other.run()
    with pytest.raises(OutputError, match="other settings"):
        BoostTuning(finished.settings, TRAINING_PROMPTS[1:], finished.output_dir, silent).run()
    more = BoostTuning(replace(finished.settings, num_drafts=1), TRAINING_PROMPTS, finished.output_dir, silent)
    assert len(more.run()) == 1, "fewer drafts of the same run are there already"


def test_a_target_that_drafts_for_itself_leaves_nothing_to_train_on(settings: BoostSettings, tmp_path: Path) -> None:
    own = replace(settings, drafts=(settings.target,), learning_rate=1e-9, num_steps=1)
    with pytest.raises(ConfigError, match="no sample is left to train draft 2"):
        BoostTuning(own, TRAINING_PROMPTS, tmp_path, silent).run()


def test_published_drafts_serve_the_engine(finished: BoostTuning) -> None:
    prompts = [prompt for prompt in OTHER_PROMPTS if len(prompt) > 3]
    target = load(finished.settings.target)
    expected = serve(target, None, prompts, Serving(max_new_tokens=12)).token_ids
    for number in (1, 2):
        folder = finished.draft_folder(number)
        opened = [open_model(ModelRef(path=path)) for path in (finished.settings.target, folder)]
        require_same_vocabulary(*opened)
        served = serve(target, load(folder), prompts, Serving(WIDE_TREE, max_new_tokens=12))
        assert served.token_ids == expected
        checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        assert "Fine-tuned from `draft`" in (folder / "README.md").read_text()


def test_windows_start_at_lines_of_the_corpus(tiny: TinyModels) -> None:
    tokenizer = TextTokenizer.load(tiny.target("gqa"))
    corpus = [f"{letter}1234567890\n" * 20 for letter in "abc"] + ["x"]
    windows = window_prompts(corpus, tokenizer, 30, 8, seed=0)
    assert {len(ids) for ids in windows} == {8} and len(windows) == 30
    assert {tokenizer.decode(ids)[0] for ids in windows} == {"a", "b", "c"}
    assert (
        windows == window_prompts(corpus, tokenizer, 30, 8, seed=0) != window_prompts(corpus, tokenizer, 30, 8, seed=1)
    )
    with pytest.raises(InputFileError, match="too short"):
        window_prompts(["abc"], tokenizer, 2, 8, seed=0)


def test_default_corpus_holds_no_held_out_file() -> None:
    held_out = {source.text for source in standard_library_sources() if source.is_held_out}
    corpus = library_corpus()
    assert held_out and len(corpus) > 100 and not held_out.intersection(corpus)


def test_given_prompts_are_cut_and_may_not_be_held_out_ones(tiny: TinyModels, tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(tiny.target("gqa"))
    prompts = given_prompts(["abcdef", "ab"], tokenizer, 3)
    assert [len(ids) for ids in prompts] == [3, 2]
    require_unseen([[*prompts[0][:2], 9]], prompts)
    with pytest.raises(PromptError, match=r"\[1\]"):
        require_unseen([[9], prompts[1]], prompts)
    with pytest.raises(PromptError, match="without any token"):
        given_prompts(["ab", ""], tokenizer, 3)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    assert read_corpus([tmp_path]) == ["one", "two"]
    with pytest.raises(InputFileError, match="missing"):
        read_corpus([tmp_path / "missing"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_drafts": 0}, "num_drafts"),
        ({"num_steps": 0}, "num_steps"),
        ({"match_tokens": 7}, "at most sample_tokens"),
        ({"match_tokens": 0}, "match_tokens"),
        ({"sample_tokens": 5}, "a divisor of num_tokens"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"loss": "l2"}, "kl, ce"),
        ({"drafts": (Path("a"), Path("b"), Path("c"))}, "1 or 2 starting points"),
    ],
)
def test_settings_out_of_range_are_refused(settings: BoostSettings, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(settings, **change)


def test_models_that_do_not_fit_are_refused_unloaded(tiny: TinyModels, tmp_path: Path) -> None:
    target = tiny.target("gqa")
    smaller = write_checkpoint(tmp_path / "smaller", VARIANTS["gqa"].with_(vocab_size=100))
    (smaller / "model.safetensors").unlink()
    require_matching_models(target, [tiny.draft("gqa")], 256)
    with pytest.raises(ConfigError, match="different vocabularies"):
        require_matching_models(target, [smaller], 20)
    with pytest.raises(ConfigError, match="at most 256"):
        require_matching_models(target, [tiny.draft("gqa")], 257)
    with pytest.raises(CheckpointError):
        require_matching_models(target, [tmp_path / "nowhere"], 20)


MOST_NODES: dict[str, Callable[[dict[str, Any]], float]] = {
    "same expansion": lambda row: row["merged_max_nodes"] / 2,
    "wider first level": lambda row: row["merged_max_nodes"],
    "best within its mean nodes": lambda row: row["merged_nodes"] + 1,
    "best within its most nodes": lambda row: row["merged_max_nodes"],
}


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_boost(parser.add_subparsers(required=True))
    args = parser.parse_args(["boost", *arguments])
    command: Callable[[argparse.Namespace], int] = args.command
    return command(args)


def test_the_command_writes_drafts_a_report_and_a_card(
    tiny: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, prompts in (("train", TRAINING_PROMPTS), ("held-out", OTHER_PROMPTS)):
        (tmp_path / f"{name}.json").write_text(json.dumps([text_of(ids) for ids in prompts]))
    shared = [
        "--target",
        str(tiny.target("gqa")),
        "--draft",
        str(tiny.draft("gqa")),
        "--output-dir",
        str(tmp_path / "out"),
    ]
    arguments = [*shared, "--prompts", str(tmp_path / "train.json"), "--num-tokens", "12", "--match-tokens", "2"]
    arguments += ["--steps", "2", "--batch-rows", "4", "--threads", "1", "--prompt-tokens", "10"]
    with pytest.raises(PromptError, match="among the training prompts"):
        run_command(*arguments, "--held-out", str(tmp_path / "train.json"))
    assert not (tmp_path / "out").exists()
    assert run_command(*arguments, "--held-out", str(tmp_path / "held-out.json")) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [stage["number"] for stage in report["drafts"]] == [1, 2]
    assert report["settings"]["match_tokens"] == 2 and report["settings"]["sample_tokens"] == 12
    assert report["held_out"]["num_prompts"] == len(OTHER_PROMPTS)
    rules = {(row["part"], row["rule"]) for row in report["held_out"]["comparisons"]}
    assert len(rules) == 8
    for row in report["held_out"]["comparisons"]:
        assert row["merged_nodes"] <= row["merged_max_nodes"]
        assert row["rival_max_nodes"] <= MOST_NODES[row["rule"]](row)
        assert row["difference"]["value"] == pytest.approx(row["merged_rate"] - row["rival_rate"])
    said = capsys.readouterr().out
    assert said.strip() in (tmp_path / "out" / "README.md").read_text()
    assert "| before loop | 2 x <1,1,1,1>" in said
