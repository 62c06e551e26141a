"""Folders of one's own in pytorch_model*.bin: named by the engine with the way out, which makes their twin."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.tests.checkpoints import TinyLlama, write_checkpoint
from engine.tests.decoding import greedy_text, load
from model_store.cli import main
from model_store.weight_files import WeightFile, opened
from tests.models.conftest import REPOSITORY
from tests.models.repositories import Intruder, config, index
from treespec.cli import main as treespec
from treespec.config import hash_model
from treespec.errors import CheckpointError
from treespec.model.checkpoint import Checkpoint

TINY = TinyLlama(num_layers=2, seed=7)
PROMPT = [5, 9, 70, 9]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 134215856\n"


def write_pickles(folder: Path, num_shards: int, tensors: dict[str, Tensor] | None = None) -> Path:
    """The tiny LLaMA as torch saves it, in one file or in shards with their index."""
    write_checkpoint(folder, TINY, tensors)
    (folder / "model.safetensors").unlink()
    tensors = tensors or TINY.tensors()
    if num_shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    names = [f"pytorch_model-{i + 1:05}-of-{num_shards:05}.bin" for i in range(num_shards)]
    places = {key: names[i % num_shards] for i, key in enumerate(tensors)}
    for name in names:
        torch.save({key: value for key, value in tensors.items() if places[key] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_bytes(index(places))
    return folder


def convert(source: Path, output: Path) -> int:
    """As the command line does."""
    return main(["--convert", str(source), str(output), "--catalogue", str(REPOSITORY / "config/models.yaml")])


def refused(source: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line; nothing is left behind."""
    beside = set(output.parent.iterdir())
    capsys.readouterr()
    assert convert(source, output) == 2
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if not line.startswith("treespec: ")]
    assert out == "" and line.startswith("error: ")
    assert set(output.parent.iterdir()) == beside
    return line


@pytest.mark.parametrize("num_shards", [1, 3])
def test_greedy_text_is_that_of_the_safetensors_twin(
    num_shards: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin, source = write_checkpoint(tmp_path / "twin", TINY), write_pickles(tmp_path / "bin", num_shards)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert convert(source, tmp_path / "new/made") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new/made'}\n"
    made, expected = load(tmp_path / "new/made"), load(twin)
    text = greedy_text(made.decoder, PROMPT, 16)
    assert text == greedy_text(expected.decoder, PROMPT, 16)
    assert len(set(text.continuation)) > 4
    files = {path.name for path in (tmp_path / "new/made").iterdir()}
    assert "model.safetensors" in files if num_shards == 1 else "model-00003-of-00003.safetensors" in files
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["made"]


def test_the_engine_names_the_files_and_the_command_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pickles(tmp_path / "bin", 5)
    fix = f"fix: in the repository, .venv/bin/python download_models.py --convert {source} NEW_FOLDER makes them"
    for ask in (hash_model, Checkpoint):
        with pytest.raises(CheckpointError) as told:
            ask(source)
        assert "holds no weights in safetensors" in str(told.value)
        assert "pytorch_model-00001-of-00005.bin" in str(told.value) and "and 2 more" in str(told.value)
        assert fix in str(told.value)
    assert treespec(["convert", "--model", str(source), "--output", str(tmp_path / "made")]) == 2
    assert fix in capsys.readouterr().err


def test_numbers_keep_their_kinds_and_the_second_run_finds_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    state = {
        "half": table.half(), "wide": table.double(), "brain": table.bfloat16(), "turned": table.T, "tied": table,
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "mask": torch.tensor([True, False]),
        "odd": torch.tensor([float("nan"), -0.0]),
    }  # fmt: skip
    source = write_pickles(tmp_path / "bin", 2, state)
    assert convert(source, tmp_path / "made") == 0
    for path in sorted((tmp_path / "made").glob("*.safetensors")):
        with opened(path) as file:
            for name, layout in file.layouts.items():
                wanted = state.pop(name)
                assert (layout.dtype, layout.shape) == (wanted.dtype, tuple(wanted.shape))
                assert torch.equal(file.read(name).nan_to_num(7), wanted.nan_to_num(7))
    assert state == {}
    capsys.readouterr()
    assert convert(source, tmp_path / "made") == 0
    assert "is this conversion already" in capsys.readouterr().err


def test_a_file_that_is_not_what_was_written_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_store import own

    write = own._write

    def spoiled(file: WeightFile, path: Path) -> str:
        sha256 = write(file, path)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return sha256

    monkeypatch.setattr(own, "_write", spoiled)
    source = write_pickles(tmp_path / "bin", 1)
    assert "a file is not what was written" in refused(source, tmp_path / "made", capsys)


def test_a_pickle_that_would_run_a_program_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pickles(tmp_path / "bin", 1)
    torch.save({"a": Intruder(tmp_path / "trace")}, source / "pytorch_model.bin")
    assert "holds more than tensors" in refused(source, tmp_path / "made", capsys)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (POINTER, "a Git LFS pointer of 134 bytes; fix: run git lfs install, then git lfs pull"),
        (b"", "weight file is damaged"),
        (pickle.dumps([1, 2]), "weight file"),
    ],
    ids=["pointer", "empty", "no table"],
)
def test_weights_that_are_none_are_told(
    content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pickles(tmp_path / "bin", 1)
    (source / "pytorch_model.bin").write_bytes(content)
    line = refused(source, tmp_path / "made", capsys)
    assert told in line and "pytorch_model.bin" in line


def test_folders_that_cannot_be_converted_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    assert "no such folder" in refused(tmp_path / "gone", made, capsys)
    assert "nothing to convert" in refused(write_checkpoint(tmp_path / "twin", TINY), made, capsys)
    source = write_pickles(tmp_path / "bin", 2)
    (source / "pytorch_model-00002-of-00002.bin").unlink()
    assert "lack what their index promises" in refused(source, made, capsys)
    (source / "pytorch_model-00001-of-00002.bin").unlink()
    assert "no weights that can be converted; where: " in refused(source, made, capsys)
    made.mkdir()
    (made / "mine").touch()
    line = refused(write_pickles(tmp_path / "other", 1), made, capsys)
    assert "the output exists and is not this conversion" in line


def test_a_precision_beside_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--convert", str(tmp_path), str(tmp_path / "made"), "--half-precision-only"])
    assert ended.value.code == 2
    assert "treespec convert --dtype gives another" in capsys.readouterr().err


PEAK = """
import sys
from pathlib import Path
from model_store.catalogue import load_catalogue
from model_store.own import convert_folder

def memory_kib(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what + ":"))

Path("/proc/self/clear_refs").write_text("5")
before = memory_kib("VmRSS")
convert_folder(Path(sys.argv[1]), Path(sys.argv[2]), load_catalogue(Path("config/models.yaml")))
print(memory_kib("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.slow  # half a gigabyte is written and read
def test_the_model_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Eight shards of 64 MiB: the mapped pages of one as it is read and as it was written, and pieces in hand."""
    shard_mib, num_shards, num_tensors, constant_mib = 64, 8, 8, 48
    source = tmp_path / "bin"
    source.mkdir()
    (source / "config.json").write_bytes(config("float32"))
    for i in range(num_shards):
        state = {f"{i}.{j}": torch.full((shard_mib * 2**18 // num_tensors,), float(i)) for j in range(num_tensors)}
        torch.save(state, source / f"pytorch_model-{i + 1:05}-of-{num_shards:05}.bin")
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'engine'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / "made")]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak_mib = int(done.stdout) / 1024
    print(f"peak {peak_mib:.0f} MiB above the start for {num_shards * shard_mib} MiB of weights")
    assert peak_mib < 2 * shard_mib + constant_mib
