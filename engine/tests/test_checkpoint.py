"""Model folders in the forms that are found in the wild."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.tests.checkpoints import TinyLlama, character_tokenizer, text_of, write_checkpoint
from engine.tests.decoding import load, logits_of
from treespec.errors import CheckpointError, TreespecError
from treespec.model.families.registry import FAMILIES
from treespec.model.spec import ModelSpec
from treespec.model.tokenizers.text import TextTokenizer

TINY = TinyLlama(hidden_size=16, ffn_size=16, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8)
PROMPT = [5, 9, 70, 9]


def spec_of(folder: Path, *without: str, **settings: Any) -> ModelSpec:
    config = TINY.config() | settings
    for key in without:
        del config[key]
    return FAMILIES.get("LlamaForCausalLM").spec(config, folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 1.0, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
        {"rope_theta": 500.0, "rope_parameters": None, "rope_scaling": None},
    ],
    ids=["older form", "newer form", "explicit nulls"],
)
def test_base_of_rotation_is_read_in_both_forms(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert spec_of(tmp_path, **settings).rope_base == 500.0


def test_sizes_that_older_configurations_leave_out_are_derived(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "head_dim", "num_key_value_heads", "tie_word_embeddings", "rope_theta")
    assert (spec.head_dim, spec.num_kv_heads, spec.tie_embeddings, spec.rope_base) == (8, 2, False, 10000.0)


@pytest.mark.parametrize(
    ("in_config", "in_generation_config", "expected"),
    [
        (2, None, (2,)),
        ([2, 7], None, (2, 7)),
        (None, None, ()),
        (2, {"eos_token_id": 9}, (9,)),
        (2, {"eos_token_id": [9, 11]}, (9, 11)),
        (2, {"temperature": 1.0}, (2,)),
    ],
)
def test_eos_is_what_generation_elsewhere_takes(
    tmp_path: Path, in_config: object, in_generation_config: dict[str, Any] | None, expected: tuple[int, ...]
) -> None:
    if in_generation_config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(in_generation_config))
    assert spec_of(tmp_path, eos_token_id=in_config).eos_token_ids == expected


def test_tied_head_that_is_stored_twice_is_read_once(tmp_path: Path) -> None:
    tied = TINY.with_(tied=True)
    plain = load(write_checkpoint(tmp_path / "plain", tied))
    twice = tied.tensors() | {"lm_head.weight": torch.ones(tied.vocab_size, tied.hidden_size)}
    again = load(write_checkpoint(tmp_path / "twice", tied, twice))
    assert torch.equal(logits_of(again.decoder, PROMPT), logits_of(plain.decoder, PROMPT))


def test_tables_that_old_checkpoints_store_are_passed_over(tmp_path: Path) -> None:
    tensors = TINY.tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert load(write_checkpoint(tmp_path, TINY, tensors)).decoder.spec.num_layers == 1


def test_weights_of_any_floating_dtype_are_read(tmp_path: Path) -> None:
    exact = logits_of(load(write_checkpoint(tmp_path / "float32", TINY)).decoder, PROMPT)
    for dtype in (torch.float16, torch.bfloat16):
        tensors = {name: tensor.to(dtype) for name, tensor in TINY.tensors().items()}
        rounded = load(write_checkpoint(tmp_path / str(dtype), TINY, tensors))
        assert rounded.decoder.dtype is torch.float32
        torch.testing.assert_close(logits_of(rounded.decoder, PROMPT), exact, rtol=0, atol=0.1)


def test_tensor_that_the_index_promises_and_its_shard_lacks_is_told(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, TINY)
    tensors = load_file(folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(TreespecError, match=r"model\.norm\.weight.*model\.safetensors"):
        load(folder)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 134215856\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_pointer_that_git_left_in_the_place_of_a_file_is_told(tmp_path: Path, name: str) -> None:
    (write_checkpoint(tmp_path, TINY) / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError) as told:
        load(tmp_path)
    assert f"where: {tmp_path / name}; received: a Git LFS pointer of 134 bytes" in str(told.value)
    assert "git lfs pull" in str(told.value) and "damaged" not in str(told.value)


def test_tensor_of_another_type_in_a_sound_file_is_told_as_that(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = TINY.tensors() | {name: torch.ones(16, 16, dtype=torch.int8)}
    with pytest.raises(CheckpointError) as told:
        load(write_checkpoint(tmp_path, TINY, tensors))
    assert f"tensor {name!r} is of a type that is not supported" in str(told.value)
    assert "received: I8; allowed: F64, F32" in str(told.value) and "damaged" not in str(told.value)


@pytest.mark.parametrize(("content", "received"), [(b"", "an empty file"), (b"abc", "a file of 3 bytes")])
def test_file_too_short_for_a_header_is_told(tmp_path: Path, content: bytes, received: str) -> None:
    (write_checkpoint(tmp_path, TINY) / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"truncated or damaged; where: .*; received: {received}; fix"):
        load(tmp_path)


@pytest.mark.parametrize(("value", "received"), [("64", '"64"'), (True, "true"), (1.5, "1.5"), (0, "0")])
def test_size_of_another_kind_is_told_as_it_is_written(tmp_path: Path, value: object, received: str) -> None:
    with pytest.raises(CheckpointError, match=f"hidden_size; where: .*; received: {received}; allowed: a whole number"):
        spec_of(tmp_path, hidden_size=value)


def test_text_goes_to_tokens_and_back(tmp_path: Path) -> None:
    character_tokenizer().save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path)
    ids = [3, 40, 99, 127]
    assert tokenizer.encode(text_of(ids)) == ids
    assert tokenizer.decode([1, *ids, 2]) == text_of(ids)
    assert tokenizer.vocabulary()["</s>"] == 2
    assert len(tokenizer.vocabulary()) == 128
