"""``treespec synthesise``: what it writes, what it refuses, and that it leaves nothing half made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.tests.decoding import load
from treespec import cli, synthesise_command
from treespec.errors import TreespecError
from treespec.model.synthetic import folder as synthetic_folder
from treespec.model.synthetic.card import MARK, Knobs, synthetic_label
from treespec.model.synthetic.checkpoint import SyntheticCheckpoint, open_checkpoint
from treespec.model.synthetic.folder import new_folder

KNOBS = Knobs(noise=0.2, miss_share=0.1)


def small_command(folder: Path, *options: str, shape: str = "llama") -> list[str]:
    sizes = {"vocab-size": 515, "hidden-size": 64, "ffn-size": 128, "num-layers": 3, "num-heads": 4}
    return ["synthesise", shape, str(folder), *(f"--{name}={size}" for name, size in sizes.items()), *options]


def test_the_command_writes_a_marked_pair_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(small_command(tmp_path / "out", "--agreement=0.7", "--num-requests=16")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "out" / "agreement.json").read_text(encoding="utf-8"))
    assert report["measured"]["top_k"][0] == pytest.approx(0.7, abs=0.06)  # a quarter of the usual requests
    for role in ("target", "draft"):
        folder = tmp_path / "out" / role
        label = synthetic_label(folder)
        assert label is not None
        assert MARK in label
        model = load(folder)
        assert model.decoder.spec.vocab_size == 515
        shape = "llama 3x64 shape" if role == "target" else "draft of the llama 3x64 shape"
        assert model.description.endswith(f"parameters, {shape}, {MARK}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_without_weights_the_folder_is_small_and_its_checkpoint_is_made(tmp_path: Path) -> None:
    knobs = KNOBS.model_dump_json()
    for name, options in {"whole": (), "made": ("--no-weights",), "shared": ("--share-layers=1",)}.items():
        assert cli.main(small_command(tmp_path / name, f"--knobs={knobs}", *options)) == 0
    made, shared = (open_checkpoint(tmp_path / name / "target") for name in ("made", "shared"))
    assert isinstance(made, SyntheticCheckpoint)
    assert isinstance(shared, SyntheticCheckpoint)
    assert not isinstance(open_checkpoint(tmp_path / "whole" / "target"), SyntheticCheckpoint)
    assert not list((tmp_path / "made").rglob("*.safetensors*"))
    stored = load_file(tmp_path / "whole" / "target" / "model.safetensors")
    assert all(torch.equal(made.take(name, tuple(tensor.shape))[:], tensor) for name, tensor in stored.items())
    assert made.num_elements() == sum(tensor.numel() for tensor in stored.values())
    assert shared.recipes.stored_layer(2) == 1


def test_other_models_have_no_mark(tmp_path: Path) -> None:
    assert synthetic_label(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--agreement=1.2"], "0.05 to 0.98"),
        (["--like=table1/greedy/nothing"], "table1/greedy/alpaca"),
        (["--agreement=0.7", "--draft-hidden-size=40"], "multiples of the target's heads of 16"),
        (["--agreement=0.7", "--draft-num-layers=3"], "allowed: 1 to 2"),
        (["--agreement=0.7", "--vocab-size=100"], "allowed 259 to"),
        (["--agreement=0.7", "--num-kv-heads=3"], "key/value heads"),
        (["--agreement=0.7", "--num-layers=1"], "received: 1 layer; allowed: 2 layers or more"),
        (["--knobs=foo"], "knobs refused: (top level): Invalid JSON"),
        (['--knobs={"noise": "a"}'], "knobs refused: noise: Input should be a valid number"),
        (['--knobs={"noise": 1, "nose": 1}'], "unknown key 'nose'; allowed: noise, miss_share"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert cli.main(small_command(tmp_path / "out", *options)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_shape_is_told_which_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synthesise", "llama-8b", str(tmp_path / "out"), "--agreement=0.7"]) == 2
    told = capsys.readouterr().err
    assert "spotserve-gpt-20b" in told
    assert "or a family, with sizes of your own: llama, opt" in told
    assert cli.main(["synthesise", "opt", str(tmp_path / "out"), "--agreement=0.7", "--num-heads=4"]) == 2
    assert "--hidden-size" in capsys.readouterr().err


def test_the_disk_is_asked_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(synthetic_folder.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    monkeypatch.setattr(synthesise_command, "_calibrated", lambda *args: pytest.fail("calibrated for nothing"))
    assert cli.main(small_command(tmp_path / "out", "--agreement=0.7")) == 2
    assert "--no-weights" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert cli.main(small_command(tmp_path / "out", f"--knobs={KNOBS.model_dump_json()}")) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else TreespecError
    with pytest.raises(expected):
        _fail_half_way(tmp_path / "out", failure)
    assert not list(tmp_path.iterdir())


def _fail_half_way(path: Path, failure: BaseException) -> None:
    with new_folder(path) as folder:
        (folder / "half").touch()
        raise failure
