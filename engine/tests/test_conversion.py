"""Converted model folders: what is in them, that they are whole or not there, and that damage is seen."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from engine.tests.conftest import ROOT, TinyModels
from engine.tests.decoding import Serving, load, logits_of, serve
from engine.tests.quantised import IN_4_BITS, INT4, INT8, load_quantised, names_in, stored_weights
from treespec.cli import main
from treespec.config import Inflation, ModelRef, Quantisation, hash_file, hash_model
from treespec.model.conversion import convert as conversion_module
from treespec.model.conversion.convert import ConversionSettings, convert
from treespec.model.conversion.shards import TensorPlan, plan_shards, verify_shard, write_shard
from treespec.model.loader import load_model
from treespec.model.quantised import QuantisedWeight, quantised_at_load
from treespec.parallel.mesh import ParallelMesh

EMBEDDED = ROOT / "models" / "embedded"
PROMPT = [5, 9, 70, 9]


@pytest.fixture
def source(tiny: TinyModels) -> Path:
    return tiny.target("gqa")


def parts_of(weight: Any) -> list[Tensor]:
    return list(weight.parts()) if isinstance(weight, QuantisedWeight) else [weight[:]]


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("quantisation", [INT8, INT4, Quantisation(bits=4, group_size=32)], ids=str)
@pytest.mark.parametrize("max_shard_mib", [4096, 1])
def test_a_quantised_folder_is_what_quantising_at_load_gives(
    family: str, quantisation: Quantisation, max_shard_mib: int, tmp_path: Path
) -> None:
    folder = EMBEDDED / family / "target"
    settings = ConversionSettings(quantisation=quantisation, max_shard_mib=max_shard_mib)
    made = convert(folder, settings, tmp_path / "made")
    found, expected = stored_weights(made), quantised_at_load(stored_weights(folder), quantisation)
    assert set(found) == set(expected)
    for name in expected:
        for part, other in zip(parts_of(found[name]), parts_of(expected[name]), strict=True):
            assert part.dtype is other.dtype and torch.equal(part, other), name
    assert (len(list(made.glob("*.safetensors"))) > 1) is (max_shard_mib == 1)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_quantised_folder_serves_the_tokens_of_the_model_rounded_at_load(family: str, tmp_path: Path) -> None:
    folder = EMBEDDED / family / "target"
    made = convert(folder, ConversionSettings(quantisation=INT4), tmp_path / "made")
    prompts, serving = [[5, 9, 70, 9], [80, 12]], Serving(max_new_tokens=12)
    expected = serve(load_quantised(folder, INT4), None, prompts, serving).token_ids
    assert serve(load(made), None, prompts, serving).token_ids == expected


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("quantisation", [None, IN_4_BITS.quantisation], ids=str)
def test_an_inflated_folder_serves_the_tokens_of_the_model_inflated_at_load(
    family: str, quantisation: Quantisation | None, tmp_path: Path
) -> None:
    folder, inflation = EMBEDDED / family / "draft", Inflation(width_factor=4, num_layers=5)
    settings = ConversionSettings(inflation=inflation, quantisation=quantisation)
    made = convert(folder, settings, tmp_path / "made")
    ref = ModelRef(path=folder, inflation=inflation, quantisation=quantisation)
    at_load, stored = load_model(ref, torch.float32, torch.device("cpu"), ParallelMesh()), load(made)
    assert stored.decoder.spec == at_load.decoder.spec
    assert stored.num_parameters == at_load.num_parameters
    assert torch.equal(logits_of(stored.decoder, PROMPT), logits_of(at_load.decoder, PROMPT))
    small = load_quantised(folder, quantisation)
    torch.testing.assert_close(logits_of(stored.decoder, PROMPT), logits_of(small.decoder, PROMPT), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["gqa", "tied-gqa", "wide-heads"])
def test_config_json_of_an_inflated_folder_is_read_elsewhere(variant: str, tiny: TinyModels, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    settings = ConversionSettings(inflation=Inflation(width_factor=4, num_layers=3))
    made = convert(tiny.target(variant), settings, tmp_path / "made")
    other = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    with torch.no_grad():
        expected = other(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(logits_of(load(made).decoder, PROMPT), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", None])
def test_dtype_is_the_one_asked_for_or_the_models_own(source: Path, dtype: Any, tmp_path: Path) -> None:
    made = convert(source, ConversionSettings(dtype=dtype), tmp_path / "made")
    expected = getattr(torch, dtype or "float32")
    assert json.loads((made / "config.json").read_text())["torch_dtype"] == (dtype or "float32")
    for name, weight in stored_weights(made).items():
        assert torch.equal(weight[:], stored_weights(source)[name][:].to(expected)), name
    half = convert(EMBEDDED / "opt" / "draft", ConversionSettings(), tmp_path / "half")
    assert {weight.dtype for weight in stored_weights(half).values()} == {torch.float16}


def test_the_folder_is_an_ordinary_one(source: Path, tmp_path: Path) -> None:
    """Another reader of the format finds the same tensors; tokenizer and configuration come along."""
    made = convert(source, IN_4_BITS, tmp_path / "made")
    assert names_in(made) == [
        *("config.json", "conversion.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]
    assert (made / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    config = json.loads((made / "config.json").read_text())
    said = {"quant_method": "treespec", "bits": 4, "group_size": 32}
    assert config == json.loads((source / "config.json").read_text()) | {"quantization_config": said}
    with safe_open(made / "model.safetensors", framework="pt") as file:
        codes = file.get_tensor("model.layers.1.mlp.down_proj.weight.codes")
    assert (codes.dtype, tuple(codes.shape)) == (torch.uint8, (64, 48))


def test_the_manifest_says_where_the_folder_comes_from(source: Path, tmp_path: Path) -> None:
    made = convert(source, IN_4_BITS, tmp_path / "made")
    manifest = json.loads((made / "conversion.json").read_text())
    assert manifest["source_sha256"] == hash_model(source)
    assert ConversionSettings.model_validate(manifest["settings"]) == IN_4_BITS
    assert manifest["files"] == {name: hash_file(made / name) for name in names_in(made) if name != "conversion.json"}


def test_tensors_are_held_one_at_a_time(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = conversion_module._Conversion._tensors
    num_held: list[int] = []

    def watched(self: Any, shard: Any) -> Iterator[tuple[str, Tensor]]:
        given: list[weakref.ref[Tensor]] = []
        for name, tensor in original(self, shard):
            given.append(weakref.ref(tensor))
            yield name, tensor
            del tensor
            num_held.append(sum(reference() is not None for reference in given))

    monkeypatch.setattr(conversion_module._Conversion, "_tensors", watched)
    convert(source, ConversionSettings(), tmp_path / "made")
    assert len(num_held) == len(stored_weights(source)) and max(num_held) == 1


def test_tensors_lie_where_their_type_can_be_mapped(tmp_path: Path) -> None:
    """Codes of an odd number of bytes stand before wider types in every weight, and behind them in the file."""
    units = [
        [TensorPlan(f"{i}.codes", torch.uint8, (3, 1)), TensorPlan(f"{i}.scales", torch.float16, (3,))] for i in "ab"
    ]
    tensors = {"a.codes": torch.tensor([[1], [2], [3]]).byte(), "b.codes": torch.tensor([[4], [5], [6]]).byte()}
    tensors |= {"a.scales": torch.arange(3).half(), "b.scales": torch.arange(3, 6).half()}
    for max_bytes, num_files in ((100, 1), (1, 2)):
        planned = plan_shards(units, max_bytes)
        assert len(planned) == num_files
        for shard in planned:
            written = write_shard(tmp_path, shard, ((name, tensors[name]) for name in shard.ranges))
            assert verify_shard(tmp_path, shard, written) == hash_file(tmp_path / shard.file_name)
            assert shard.num_bytes == (tmp_path / shard.file_name).stat().st_size
            with safe_open(tmp_path / shard.file_name, framework="pt") as file:
                for name, (start, _) in shard.ranges.items():
                    assert start % tensors[name].element_size() == 0
                    assert torch.equal(file.get_tensor(name), tensors[name])


def test_the_command_writes_a_folder_and_says_which(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str, output: Path) -> tuple[int, str, str]:
        status = main(["convert", "--model", str(source), "--output", str(output), *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    made, refused = tmp_path / "made", tmp_path / "refused"
    status, out, err = run("--quantise", "int4", "--group-size", "32", "--inflate-width", "4", output=made)
    assert (status, out) == (0, f"{made}\n") and "tensors" in err
    assert load(made).decoder.spec.hidden_size == 4 * 64
    manifest = json.loads((made / "conversion.json").read_text())
    assert manifest["settings"]["quantisation"] == {"bits": 4, "group_size": 32}
    status, out, err = run("--group-size", "32", output=refused)
    assert (status, out) == (2, "") and "--group-size without --quantise" in err
    status, out, err = run("--inflate-layers", "0", output=refused)
    assert (status, out) == (2, "") and "inflation.num_layers" in err
    assert names_in(tmp_path) == ["made"]
