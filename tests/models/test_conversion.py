"""Weights in the wanted precision: the same numbers, no needless copies, never more in memory than a shard."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from model_store.weight_files import PIECE_NUMEL, TensorLayout, opened, write_safetensors
from tests.models.conftest import REPOSITORY, Download
from tests.models.hub_server import HubServer
from tests.models.repositories import (
    DRAFT,
    LLAMA,
    OPT,
    Intruder,
    bin_file,
    config,
    draft_weights,
    llama_shards,
    opt_shards,
)
from treespec.model.checkpoint import Checkpoint

FULL = "-full-precision"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All of a folder's tensors."""
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def merged(shards: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: value for shard in shards for name, value in shard.items()}


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        wanted = value if name.endswith(".inv_freq") else value.to(dtype)
        assert got[name].dtype == wanted.dtype, name
        assert torch.equal(got[name], wanted), name


def test_shards_of_bin_become_safetensors_of_equal_numbers(download: Download) -> None:
    assert download.run("opt-30b") == 0
    expected = merged(opt_shards())
    for folder, dtype in ((OPT, torch.float16), (OPT + FULL, torch.float32)):
        assert_equal(tensors_of(download.cache / folder), expected, dtype)
        named = json.loads((download.cache / folder / "config.json").read_text())
        assert named == json.loads(config("")) | {"torch_dtype": str(dtype).removeprefix("torch.")}
        index = json.loads((download.cache / folder / "model.safetensors.index.json").read_text())
        assert index["weight_map"] == {
            name: f"model-0000{i}-of-00002.safetensors" for i, shard in enumerate(opt_shards(), 1) for name in shard
        }
        assert index["metadata"]["total_size"] == sum(value.numel() for value in expected.values()) * dtype.itemsize
        assert not list((download.cache / folder).glob("*.bin*"))


def test_our_own_loader_reads_them(download: Download) -> None:
    assert download.run("opt-30b", "llama-68m") == 0
    for folder, shards in ((OPT + FULL, opt_shards()), (DRAFT, [draft_weights()])):
        checkpoint = Checkpoint(download.cache / folder)
        for name, value in merged(shards).items():
            assert torch.equal(checkpoint.take(name, tuple(value.shape))[:].float(), value.half().float())
        checkpoint.finish()


def test_bin_files_are_kept_only_if_asked_for(download: Download) -> None:
    assert download.run("opt-30b", "--half-precision-only") == 0
    assert list(download.cache.rglob("*.bin")) == []
    assert download.run("opt-30b", "--full-precision-only", "--keep-originals") == 0
    assert len(list(download.cache.rglob("*.bin"))) == 2


def test_safetensors_that_fit_are_linked_and_others_converted(download: Download) -> None:
    """The table in full precision does not make of a half-precision model something to be converted."""
    assert download.run("llama-7b") == 0
    expected = merged(llama_shards())
    assert_equal(tensors_of(download.cache / LLAMA), expected, torch.float16)
    assert_equal(tensors_of(download.cache / (LLAMA + FULL)), expected, torch.float32)
    for shard in (download.cache / LLAMA).glob("*.safetensors"):
        original = download.cache / ".originals" / LLAMA / shard.name
        assert os.path.samefile(shard, original)
        assert not os.path.samefile(shard, download.cache / (LLAMA + FULL) / shard.name)
    half, full = (json.loads((download.cache / name / "config.json").read_text()) for name in (LLAMA, LLAMA + FULL))
    assert (half["torch_dtype"], full["torch_dtype"]) == ("float16", "float32")


def test_full_precision_weights_are_rounded_once(download: Download) -> None:
    assert download.run("llama-68m") == 0
    assert_equal(tensors_of(download.cache / DRAFT), draft_weights(), torch.float16)
    assert_equal(tensors_of(download.cache / (DRAFT + FULL)), draft_weights(), torch.float32)


def test_the_other_precision_of_what_was_dropped_is_fetched_again_and_linked_files_are_not(
    download: Download, hub: HubServer
) -> None:
    assert download.run("llama-7b", "opt-30b", "--half-precision-only") == 0
    hub.asked.clear()
    assert download.run("llama-7b", "opt-30b", "--full-precision-only") == 0
    assert hub.files_asked() == ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]


def put(hub: HubServer, content: bytes, dtype: str = "float32") -> None:
    """A model of one file of weights."""
    hub.repositories["some/model"] = {
        "config.json": config(dtype),
        "tokenizer.json": b"{}",
        "pytorch_model.bin": content,
    }


def test_views_shared_and_odd_tensors_keep_their_values(download: Download, hub: HubServer) -> None:
    table = torch.arange(60.0).reshape(6, 10)
    state = {
        "transposed.weight": table.T,
        "part.weight": table[2:4, ::2],
        "tied.weight": table,
        "head.weight": table,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "ids": torch.arange(5),
        "mask": torch.tensor([True, False]),
        "small": torch.ones(3, dtype=torch.bfloat16),
    }
    put(hub, bin_file(state))
    assert download.run("some/model", "--full-precision-only") == 0
    got = tensors_of(download.cache / ("some/model" + FULL))
    for name, value in state.items():
        wanted = value.float() if value.is_floating_point() else value
        assert torch.equal(got[name], wanted) and got[name].dtype == wanted.dtype, name


def test_a_tensor_larger_than_a_piece_keeps_its_order(download: Download, hub: HubServer) -> None:
    state = {"large.weight": torch.arange(2.5 * PIECE_NUMEL).remainder(1024).reshape(2, -1)}
    put(hub, bin_file(state))
    assert download.run("some/model") == 0
    assert_equal(tensors_of(download.cache / "some/model"), state, torch.float16)
    assert_equal(tensors_of(download.cache / ("some/model" + FULL)), state, torch.float32)


def test_the_old_format_is_read_as_well(download: Download, hub: HubServer) -> None:
    buffer = io.BytesIO()
    torch.save(draft_weights(), buffer, _use_new_zipfile_serialization=False)
    put(hub, buffer.getvalue())
    assert download.run("some/model", "--full-precision-only") == 0
    assert_equal(tensors_of(download.cache / ("some/model" + FULL)), draft_weights(), torch.float32)


def test_bfloat16_is_half_precision_already(download: Download, hub: HubServer) -> None:
    state = {"embed.weight": torch.full((4, 4), 1e30, dtype=torch.bfloat16)}
    put(hub, bin_file(state), "bfloat16")
    assert download.run("some/model") == 0
    folder = download.cache / "some/model"
    assert torch.equal(tensors_of(folder)["embed.weight"], state["embed.weight"])
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert tensors_of(download.cache / ("some/model" + FULL))["embed.weight"].dtype == torch.float32


def test_a_pickle_that_would_run_a_program_is_not_opened(download: Download, hub: HubServer) -> None:
    buffer = io.BytesIO()
    torch.save({"a": Intruder(download.root / "trace")}, buffer)
    put(hub, buffer.getvalue())
    assert download.run("some/model") == 2
    assert "holds more than tensors" in download.err
    assert not (download.root / "trace").exists()
    assert not (download.cache / "some/model").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (bin_file(draft_weights())[:-200], "weight file is damaged"),
        (b"no pickle at all", "weight file"),
        (pickle.dumps([1, 2]), "weight file"),
        (bin_file({"a": torch.ones(2), "b": {"c": torch.ones(2)}}), "no plain table of tensors"),  # type: ignore[dict-item]
        (bin_file({"a": torch.ones(2, dtype=torch.complex64)}), "of an unknown kind"),
        (bin_file({"big.weight": torch.full((4,), 1e6)}), "tensor 'big.weight' holds values beyond float16"),
    ],
)
def test_weights_that_cannot_be_used_are_told(download: Download, hub: HubServer, content: bytes, told: str) -> None:
    """The hub itself has them so: their hashes are right."""
    put(hub, content)
    assert download.run("some/model", "--half-precision-only") == 2
    (line,) = [line for line in download.err.splitlines() if line.startswith("error: ")]
    assert told in line
    assert "pytorch_model.bin" in line
    assert not (download.cache / "some/model").exists()


def test_a_damaged_safetensors_file_is_told(download: Download, hub: HubServer) -> None:
    hub.repositories["some/model"] = {"config.json": config("float16"), "model.safetensors": b"\x08" + b"\0" * 20_000}
    assert download.run("some/model") == 2
    assert "weight file is damaged" in download.err


def test_an_index_that_promises_more_than_there_is_is_told(download: Download, hub: HubServer) -> None:
    files = hub.repositories[OPT]
    index = json.loads(files["pytorch_model.bin.index.json"])
    index["weight_map"]["layers.9.weight"] = "pytorch_model-00002-of-00002.bin"
    files["pytorch_model.bin.index.json"] = json.dumps(index).encode()
    assert download.run("opt-30b", "--half-precision-only") == 2
    assert "lack what their index promises" in download.err
    assert "layers.9.weight" in download.err


def test_a_shard_that_the_repository_lacks_is_told(download: Download, hub: HubServer) -> None:
    del hub.repositories[LLAMA]["model-00002-of-00002.safetensors"]
    assert download.run("llama-7b", "--half-precision-only") == 2
    assert "lack what their index promises" in download.err


def test_files_written_are_byte_for_byte_readable_by_the_library(tmp_path: Path) -> None:
    tensors = {"b": torch.rand(3, 5), "a": torch.arange(7, dtype=torch.int16), "c": torch.ones(2).bfloat16()}
    layouts = {name: TensorLayout(tuple(value.shape), value.dtype) for name, value in tensors.items()}
    write_safetensors(tmp_path / "x.safetensors", layouts, lambda name: tensors[name].split(2))
    got = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(got[name], value) for name, value in tensors.items())
    with opened(tmp_path / "x.safetensors") as file:
        assert file.layouts == layouts
    assert len(save(tensors)) - (tmp_path / "x.safetensors").stat().st_size < 200


CONVERT = """
import sys
from pathlib import Path
from model_store.convert import Conversion
from model_store.lock import LockedModel

def memory_kib(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what + ":"))

root = Path(sys.argv[1])
source = LockedModel.model_validate_json((root / "source.json").read_text())
Path("/proc/self/clear_refs").write_text("5")  # the peak so far, which is partly the parent's, is forgotten
before = memory_kib("VmRSS")
Conversion("some/model", sys.argv[2], root / "originals", source, root / "made").run()
print(memory_kib("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.slow  # half a gigabyte is written and read
@pytest.mark.parametrize("precision", ["half", "full"])
def test_conversion_holds_one_shard_at_most(tmp_path: Path, precision: str) -> None:
    """Eight shards of 64 MiB: the mapped pages of one, and what torch and the pieces in hand take at any size."""
    shard_mib, num_shards, num_tensors, constant_mib = 64, 8, 8, 48
    originals = tmp_path / "originals"
    originals.mkdir()
    files = {"config.json": config("float32")}
    (originals / "config.json").write_bytes(files["config.json"])
    entries = {"config.json": {"size": len(files["config.json"]), "sha256": "0" * 64}}
    for i in range(num_shards):
        numel = shard_mib * 2**20 // 4 // num_tensors
        name = f"pytorch_model-0000{i + 1}-of-0000{num_shards}.bin"
        torch.save({f"layers.{i}.{j}": torch.full((numel,), float(i)) for j in range(num_tensors)}, originals / name)
        entries[name] = {"size": (originals / name).stat().st_size, "sha256": "0" * 64}
    (tmp_path / "source.json").write_text(json.dumps({"revision": "0" * 40, "files": entries}))
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'engine'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path), precision], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak_mib = int(done.stdout) / 1024
    print(f"{precision}: peak {peak_mib:.0f} MiB above the start for {num_shards * shard_mib} MiB of weights")
    assert peak_mib < shard_mib + constant_mib
    assert len(tensors_of(tmp_path / "made")) == num_shards * num_tensors
