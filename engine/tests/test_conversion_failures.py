"""Conversions that cannot be finished, or were: whole or not there, and damage is seen."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.tests.checkpoints import TinyLlama, write_checkpoint
from engine.tests.conftest import TinyModels
from engine.tests.decoding import load
from engine.tests.quantised import IN_4_BITS, INT8, MIB, names_in
from treespec.config import Inflation
from treespec.errors import CapacityError, CheckpointError, ConfigError, OutputError
from treespec.model.conversion import convert as conversion_module
from treespec.model.conversion.convert import ConversionSettings, convert
from treespec.model.conversion.shards import write_shard


@pytest.fixture
def source(tiny: TinyModels) -> Path:
    """A model of 96 FFN units, which are no multiple of 64."""
    return tiny.target("gqa")


def test_a_finished_conversion_is_found_and_left_alone(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = convert(source, IN_4_BITS, tmp_path / "made")
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    assert convert(source, IN_4_BITS, tmp_path / "made") == made
    assert "is this conversion already" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_other_outputs_are_never_touched(source: Path, tiny: TinyModels, tmp_path: Path) -> None:
    made = convert(source, IN_4_BITS, tmp_path / "made")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for taken, model, settings, received in (
        (made, source, ConversionSettings(quantisation=INT8), "other settings"),
        (made, tiny.target("mha"), IN_4_BITS, "another source"),
        (other, source, IN_4_BITS, "no conversion"),
        (source, source, IN_4_BITS, "no conversion"),
        (other / "notes.txt", source, IN_4_BITS, "no conversion"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(OutputError, match=f"exists and is not this conversion.*{received}"):
            convert(model, settings, taken)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_empty_folder_is_filled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    convert(source, IN_4_BITS, tmp_path / "made")
    assert load(tmp_path / "made").decoder.spec.num_layers == 2


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "gone"])
def test_a_damaged_conversion_is_seen(source: Path, name: str, damage: str, tmp_path: Path) -> None:
    path = convert(source, IN_4_BITS, tmp_path / "made") / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes(flipped if damage == "flipped" else data[:-1])
    with pytest.raises(OutputError, match=rf"damaged.*{name}.*remove the folder and convert again"):
        convert(source, IN_4_BITS, tmp_path / "made")


def test_what_comes_back_from_the_disk_is_compared(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(folder: Path, shard: Any, tensors: Any) -> dict[str, str]:
        digests = write_shard(folder, shard, tensors)
        with open(folder / shard.file_name, "r+b") as file:
            file.seek(shard.ranges["model.norm.weight"][0])
            file.write(b"\xff")
        return digests

    monkeypatch.setattr(conversion_module, "write_shard", lying)
    with pytest.raises(OutputError, match=r"tensor 'model\.norm\.weight' is not what was written"):
        convert(source, IN_4_BITS, tmp_path / "made")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_when_it_breaks_off(
    source: Path, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(self: Any, shard: Any) -> Iterator[tuple[str, Tensor]]:
        yield "model.norm.weight", torch.zeros(64)
        assert len(names_in(tmp_path)) == 1  # under its temporary name
        raise error

    monkeypatch.setattr(conversion_module._Conversion, "_tensors", breaking)
    with pytest.raises(error):
        convert(source, ConversionSettings(), tmp_path / "made")
    assert names_in(tmp_path) == []


def test_what_a_killed_process_left_is_removed(source: Path, tmp_path: Path) -> None:
    host = socket.gethostname()
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive = tmp_path / f".made.{host}.{ended.pid}.tmp", tmp_path / f".made.{host}.{os.getppid()}.tmp"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    convert(source, IN_4_BITS, tmp_path / "made")
    assert names_in(tmp_path) == [alive.name, "made"]


def test_space_is_asked_for_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> Any:
        asked.append(Path(place))
        return shutil._ntuple_diskusage(10 * MIB, 9 * MIB, MIB)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(CapacityError, match=r"2 MiB to write; allowed: 1 MiB free"):
        convert(source, IN_4_BITS, tmp_path / "new" / "made")
    assert asked == [tmp_path] and names_in(tmp_path) == []


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_grow_is_one_error_and_no_remains(source: Path, tmp_path: Path) -> None:
    with file_size_limit(40_000), pytest.raises(CapacityError, match="the disk is full, or its quota; nothing"):
        convert(source, IN_4_BITS, tmp_path / "made")
    assert names_in(tmp_path) == []
    convert(source, IN_4_BITS, tmp_path / "made")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_is_one_error_and_no_remains(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = write_checkpoint(tmp_path / "big", TinyLlama(hidden_size=128, ffn_size=512))
    with pytest.raises(CapacityError, match=r"MiB to write; allowed: \d MiB free"):
        convert(big, ConversionSettings(), small_disk / "made")
    monkeypatch.setattr(conversion_module, "require_space", lambda output, num_bytes: None)  # others fill it meanwhile
    with pytest.raises(CapacityError, match="the disk is full"):
        convert(big, ConversionSettings(), small_disk / "made")
    assert names_in(small_disk) == []


def test_an_output_that_cannot_be_written_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        convert(source, IN_4_BITS, tmp_path / "file" / "made")


def damaged(source: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(source, folder)
    change(folder)
    return folder


def test_sources_that_cannot_be_converted_are_refused(source: Path, tmp_path: Path) -> None:
    made = convert(source, IN_4_BITS, tmp_path / "made")
    cut = damaged(source, tmp_path / "cut", lambda folder: os.truncate(folder / "model.safetensors", 70_000))
    large = TinyLlama()
    tensors = large.tensors()
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = 1e6
    beyond = write_checkpoint(tmp_path / "beyond", large, tensors)
    before = names_in(tmp_path)
    for model, settings, error, message in (
        (made, ConversionSettings(quantisation=INT8), CheckpointError, "quantised already"),
        (made, ConversionSettings(dtype="float16"), CheckpointError, "quantised already"),
        (cut, IN_4_BITS, CheckpointError, "truncated or damaged"),
        (tmp_path / "absent", IN_4_BITS, CheckpointError, "no such folder"),
        (source, ConversionSettings(quantisation=INT8), ConfigError, "96 inputs, group_size 64"),
        (source, ConversionSettings(inflation=Inflation(num_layers=1)), ConfigError, "cannot remove layers"),
        (beyond, ConversionSettings(dtype="float16"), ConfigError, "up_proj.*largest magnitude 1e.06.*65504"),
        (beyond, IN_4_BITS, ConfigError, "up_proj.*largest magnitude 1e.06.*65504"),
    ):
        with pytest.raises(error, match=message):
            convert(model, settings, tmp_path / "new")
        assert names_in(tmp_path) == before
