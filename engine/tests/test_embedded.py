"""What the shipped pair and prompts must be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import download_models
from engine.tests.conftest import ROOT
from engine.tests.decoding import PAPER_TREE, Pair, Serving, load, serve
from treespec.api import SamplingParams
from treespec.api import load as load_pair
from treespec.config import ModelRef
from treespec.model.loader import LoadedModel, open_model, require_same_vocabulary
from treespec.serving.prompts import read_prompt_file

PROMPT_SETS = ("code", "docstrings", "comments", "tests", "mixed")


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_every_prompt_set_has_enough_prompts_that_leave_room(name: str, embedded: Pair) -> None:
    texts = read_prompt_file(ROOT / "prompts" / f"{name}.json")
    assert len(set(texts)) >= 32
    lengths = [len(embedded.target.tokenizer.encode(text)) for text in texts]
    assert 24 < min(lengths) <= max(lengths) <= 64


def test_three_models_share_one_vocabulary(embedded_dir: Path, embedded: Pair) -> None:
    target = open_model(ModelRef(path=embedded_dir / "target"))
    for name in ("draft", "draft-undistilled"):
        require_same_vocabulary(target, open_model(ModelRef(path=embedded_dir / name)))
        assert load(embedded_dir / name).num_parameters < embedded.target.num_parameters / 3


def test_distilled_draft_is_accepted_more_often_than_the_undistilled_one(embedded_dir: Path, embedded: Pair) -> None:
    undistilled = load(embedded_dir / "draft-undistilled")

    def num_steps(draft: LoadedModel) -> int:
        served = serve(embedded.target, draft, embedded.prompts, Serving(PAPER_TREE, max_new_tokens=28))
        return sum(len(steps) for steps in served.accepted_per_step)

    assert num_steps(embedded.draft) < num_steps(undistilled) < 28 * len(embedded.prompts)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_report_holds_what_was_to_be_reached(embedded_dir: Path, family: str) -> None:
    measured = json.loads((embedded_dir.parent / family / "report.json").read_text())["prompt_sets"]
    assert set(measured) == {*PROMPT_SETS, "all"}
    assert measured["all"]["greedy"]["distinct_mean"] >= 0.5
    drafts = measured["all"]["drafts"]
    assert 0.55 <= drafts["draft"]["before loop"]["top_k"][0] <= 0.85
    assert drafts["draft_undistilled"]["before loop"]["top_k"][0] < drafts["draft"]["before loop"]["top_k"][0]


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_model_card_names_licence_command_and_held_out_loss(embedded_dir: Path, family: str) -> None:
    card = (embedded_dir.parent / family / "README.md").read_text()
    for words in ("PSF License", f"python -m treespec.tuning --family {family}", "Held-out loss", "distinct 4-grams"):
        assert words in card


def verify(monkeypatch: pytest.MonkeyPatch, models: Path, prompts: Path, *options: str) -> int:
    arguments = ["download_models.py", "--models-dir", str(models), "--prompts-dir", str(prompts), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    return download_models.main()


def test_shipped_files_have_their_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "verified.txt"
    assert verify(monkeypatch, ROOT / "models/embedded", ROOT / "prompts", "--output", str(output)) == 0
    lines = output.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert all(line.startswith("ok  ") for line in lines)
    verified = "\n".join(lines)
    for name in ("target/model.safetensors", "draft/tokenizer.json", "draft-undistilled/config.json", "mixed.json"):
        assert name in verified


@pytest.mark.parametrize("damage", ["differs", "missing"])
def test_damaged_files_are_named_and_nothing_is_marked_as_verified(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    path = tmp_path / "prompts" / "code.json"
    path.unlink() if damage == "missing" else path.write_text("[]")
    output = tmp_path / "verified.txt"
    assert verify(monkeypatch, ROOT / "models/embedded", tmp_path / "prompts", "--output", str(output)) == 1
    captured = capsys.readouterr()
    (bad,) = [line for line in captured.out.splitlines() if not line.startswith("ok  ")]
    assert bad.startswith(f"{damage}  ")
    assert bad.endswith("code.json")
    assert captured.err.startswith("error: 1 files")
    assert not output.exists()


@pytest.mark.parametrize(
    ("models", "prompts"), [("nosuch", "prompts"), ("empty", "prompts"), ("models/embedded", "nosuch")]
)
def test_folder_without_anything_to_compare_is_an_error(
    models: str, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the other folder holds: files that are all right would be taken for all files."""
    (tmp_path / "empty").mkdir()
    wrong = tmp_path / (models if prompts == "prompts" else prompts)
    folders = [wrong if name == wrong.name else ROOT / name for name in (models, prompts)]
    assert verify(monkeypatch, folders[0], folders[1]) == 2
    captured = capsys.readouterr()
    received = "no SHA256SUMS in it" if models == "empty" else "no such folder"
    assert captured.err.startswith(f"error: nothing to compare; where: {wrong}; received: {received}; fix: ")
    assert captured.out == ""


def test_all_embedded_models_together_are_small_enough(embedded_dir: Path) -> None:
    assert sum(path.stat().st_size for path in embedded_dir.parent.rglob("*") if path.is_file()) <= 24_000_000


@pytest.mark.parametrize("batch_size", [1, 4])
def test_opt_pair_speculates_without_changing_a_token(embedded_dir: Path, batch_size: int) -> None:
    folder = embedded_dir.parent / "opt"
    prompts = read_prompt_file(ROOT / "prompts" / "code.json")[:6]
    params = SamplingParams(max_new_tokens=32, ignore_eos=True)
    alone = load_pair(folder / "target", max_requests_per_batch=batch_size).generate(prompts, params)
    for expansion in ((1,) * 8, PAPER_TREE, (2, 2, 1)):
        llm = load_pair(folder / "target", folder / "draft", expansion=expansion, max_requests_per_batch=batch_size)
        speculated = llm.generate(prompts, params)
        assert [completion.token_ids for completion in speculated] == [completion.token_ids for completion in alone]
        assert sum(completion.profile.num_accepted_tokens for completion in speculated) > 32
