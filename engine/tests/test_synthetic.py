"""Synthetic models: any part equals the same part of the whole, files equal memory, drafts agree as asked."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.tests.decoding import Serving, load, logits_of, serve
from treespec.errors import CheckpointError
from treespec.model.synthetic.agreement import Trajectories, measure
from treespec.model.synthetic.calibration import build, calibrate, measure_pair, proxy_of
from treespec.model.synthetic.card import CoreSizes, Knobs, SyntheticCard
from treespec.model.synthetic.checkpoint import SyntheticCheckpoint, open_checkpoint
from treespec.model.synthetic.folder import write_model, write_weights
from treespec.model.synthetic.presets import wanted_agreement
from treespec.model.synthetic.shapes import PUBLISHED, Core, ModelShape
from treespec.model.synthetic.tensors import Groups
from treespec.model.tokenizers.text import TextTokenizer

FULL, NARROW = Core(64, 128, 1), Core(32, 96, 2)
SHAPES = {
    "llama": ModelShape("llama", 515, 64, 128, 4, 4, 4, 256),
    "grouped": ModelShape("llama", 515, 64, 128, 4, 4, 2, 256),
    "opt": ModelShape("opt", 515, 64, 128, 4, 4, 4, 256),
}
KNOBS = Knobs(noise=0.2, miss_share=0.1)


def card_of(core: Core = FULL, knobs: Knobs = KNOBS, **changes: Any) -> SyntheticCard:
    sizes = CoreSizes(**vars(core))
    card = SyntheticCard(title="tiny", role="target", seed=3, dtype="float16", core=sizes, knobs=knobs)
    return card.model_copy(update=changes)


def checkpoint_of(shape: ModelShape, card: SyntheticCard) -> SyntheticCheckpoint:
    return SyntheticCheckpoint.of(Path("nowhere"), shape, card)


class Written(NamedTuple):
    shape: ModelShape
    card: SyntheticCard
    target: Path
    draft: Path


@pytest.fixture(scope="module", params=["llama", "opt"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A pair on disk, weights in files."""
    shape, card = SHAPES[request.param], card_of()
    root = tmp_path_factory.mktemp(request.param)
    for role, sizes in (("target", shape), ("draft", FULL.draft_of(shape))):
        (root / role).mkdir()
        write_model(root / role, sizes, card.model_copy(update={"role": role}), with_weights=True)
    return Written(shape, card, root / "target", root / "draft")


@pytest.mark.parametrize("core", [FULL, NARROW], ids=["full", "narrow"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_any_part_of_a_tensor_is_bit_for_bit_that_part_of_the_whole(name: str, core: Core, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for tensor in checkpoint_of(SHAPES[name], card_of(core, dtype=dtype)).tensors.values():
        whole = tensor[:]
        assert whole.shape == tensor.shape
        assert whole.dtype == getattr(torch, dtype)
        assert whole.isfinite().all()
        for _ in range(6):
            part = tuple(slice(*sorted(rng.integers(0, size + 1, 2).tolist())) for size in tensor.shape)
            assert torch.equal(tensor[part], whole[part]), (tensor.name, part)


def test_a_seed_decides_every_matrix() -> None:
    first, again = (checkpoint_of(SHAPES["llama"], card_of()).tensors for _ in range(2))
    other = checkpoint_of(SHAPES["llama"], card_of(seed=4)).tensors
    for name, tensor in first.items():
        assert torch.equal(tensor[:], again[name][:])
        assert torch.equal(tensor[:], other[name][:]) == ("norm" in name), name


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_rows_of_a_matrix_differ_and_have_the_variance_they_should(name: str) -> None:
    shape = replace(SHAPES[name], hidden_size=256, num_heads=4, num_kv_heads=4, ffn_size=512)
    tensors = checkpoint_of(shape, card_of(Core(256, 512, 1))).tensors
    matrix = next(tensor for key, tensor in tensors.items() if key.endswith("2.self_attn.v_proj.weight"))[:].float()
    assert len(matrix.unique(dim=0)) == len(matrix)
    assert matrix.std() * 256**0.5 == pytest.approx(1, abs=0.02)
    assert abs(matrix.mean()) * 256**0.5 < 0.02


@pytest.mark.parametrize("name", SHAPES)
def test_the_draft_is_the_core_of_the_target(name: str) -> None:
    shape, card = SHAPES[name], card_of(NARROW)
    target = checkpoint_of(shape, card).tensors
    draft = checkpoint_of(NARROW.draft_of(shape), card).tensors
    writers = ("o_proj", "out_proj", "down_proj", "fc2")
    for key, tensor in draft.items():
        if "norm" in key or key.endswith("bias"):
            continue
        core = target[key][tuple(slice(size) for size in tensor.shape)]
        rows = slice(1 if any(writer in key for writer in writers) else 0, None)  # the first one is faint, by width
        assert torch.equal(core[rows], tensor[rows]), key


def test_predecessors_of_a_group_cover_the_vocabulary_once() -> None:
    groups = Groups.of(515, 3, 8, seed=1)
    every = np.concatenate([groups.predecessors(np.arange(groups.num_groups), member) for member in range(8)])
    assert groups.first == 515 - 64 * 8
    assert sorted(every.tolist()) == list(range(groups.first, 515))


def test_files_hold_what_is_made_in_memory(written: Written, tmp_path: Path) -> None:
    tensors = checkpoint_of(written.shape, written.card).tensors
    write_weights(tmp_path, tensors, max_shard_bytes=100_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 2
    single = load_file(written.target / "model.safetensors")
    assert single.keys() == index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in single.values())
    for name, tensor in single.items():
        assert torch.equal(tensor, tensors[name][:]), name
        assert torch.equal(tensor, load_file(tmp_path / index["weight_map"][name])[name]), name


@pytest.mark.parametrize("is_sharded", [False, True])
def test_transformers_finds_the_same_logits(written: Written, tmp_path: Path, *, is_sharded: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = written.target
    if is_sharded:
        folder = tmp_path / "sharded"
        write_model_in_shards(folder, written)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    token_ids = [17, 300, 301, 511, 4, 260, 260]
    with torch.no_grad():
        expected = model(torch.tensor([token_ids])).logits[0]
    torch.testing.assert_close(logits_of(build(written.shape, written.card), token_ids), expected, rtol=0, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.decode(tokenizer("a text: é")["input_ids"]) == "a text: é"


def write_model_in_shards(folder: Path, written: Written) -> None:
    folder.mkdir()
    write_model(folder, written.shape, written.card, with_weights=False)
    write_weights(folder, checkpoint_of(written.shape, written.card).tensors, max_shard_bytes=100_000)


def test_speculation_saves_the_steps_that_agreement_predicts_and_no_token_changes(
    written: Written, tmp_path: Path
) -> None:
    target, draft = load(written.target), load(written.draft)
    for role in ("target", "draft"):
        shutil.copytree(written.target.parent / role, tmp_path / role, ignore=shutil.ignore_patterns("*.safetensors"))
    prompts = Trajectories(num_requests=24).prompts(written.shape.vocab_size).tolist()
    serving = Serving(batch_size=8, max_new_tokens=40)
    plain = serve(target, None, prompts, serving)
    chained = serve(target, draft, prompts, serving.with_(expansion=(1, 1, 1)))
    weightless = serve(load(tmp_path / "target"), load(tmp_path / "draft"), prompts, serving)
    assert chained.token_ids == plain.token_ids == weightless.token_ids
    found = measure(target.decoder, draft.decoder, Trajectories(num_requests=24, num_tokens=40)).top_k[0]
    accepted = [count for steps in chained.accepted_per_step for count in steps]
    assert np.mean(accepted) == pytest.approx(found + found**2 + found**3, rel=0.15)
    assert 0.4 < found < 0.9


@pytest.mark.parametrize("agreement", [0.5, 0.85])
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_agreement_is_what_was_asked_for(name: str, agreement: float) -> None:
    wanted = wanted_agreement(agreement)
    settings = Trajectories(num_requests=32)
    found = calibrate(SHAPES[name], card_of(knobs=wanted.start), wanted, settings, lambda line: None)
    assert found.measured_on == SHAPES[name]
    assert found.measured.top_k[0] == pytest.approx(agreement, abs=0.03)
    assert found.measured.distinct > 0.8
    assert 0.5 < found.measured.mean_entropy < math.log(515) / 2


def test_without_noise_a_draft_of_full_width_always_agrees() -> None:
    for shape in (SHAPES["llama"], SHAPES["opt"]):
        found = measure_pair(shape, card_of(knobs=Knobs(noise=0)), Trajectories(num_requests=8, num_tokens=16))
        assert found.top_k[0] == 1.0


def test_without_noise_a_narrow_draft_hardly_differs() -> None:
    found = measure_pair(SHAPES["llama"], card_of(NARROW, Knobs(noise=0)), Trajectories(num_requests=16, num_tokens=32))
    assert found.top_k[0] > 0.95


def test_misses_are_tokens_that_the_draft_does_not_know_at_all() -> None:
    settings = Trajectories(num_requests=32, num_tokens=32)
    few = measure_pair(SHAPES["llama"], card_of(knobs=Knobs(noise=0.1)), settings).top_k
    many = measure_pair(SHAPES["llama"], card_of(knobs=Knobs(noise=0.1, miss_share=0.4)), settings).top_k
    assert few[4] > 0.97
    assert many[4] < few[4] - 0.15


def test_shared_layers_repeat_and_add_as_much_noise() -> None:
    shape = replace(SHAPES["llama"], num_layers=9)
    shared, plain = (checkpoint_of(shape, card_of(share_layers=share)).tensors for share in (2, None))
    for name in ("self_attn.q_proj.weight", "mlp.down_proj.weight"):
        one, two, three = (f"model.layers.{layer}.{name}" for layer in (3, 4, 5))
        assert torch.equal(shared[one][:], shared[three][:])
        assert not torch.equal(shared[one][:], shared[two][:])
        assert not torch.equal(plain[one][:], plain[three][:])
    decoder = build(shape, card_of(share_layers=2))
    storages = [decoder._layers[layer].down.storage for layer in (2, 3, 4, 5)]
    assert storages[0] is storages[2]
    assert storages[1] is storages[3]
    assert storages[0] is not storages[1]
    assert (
        checkpoint_of(shape, card_of(share_layers=2)).num_elements()
        == checkpoint_of(replace(shape, num_layers=3), card_of()).num_elements()
    )
    settings, knobs = Trajectories(num_requests=32), Knobs(noise=0.2)
    found = [measure_pair(shape, card_of(knobs=knobs, share_layers=share), settings).top_k[0] for share in (2, None)]
    assert found[0] == pytest.approx(found[1], abs=0.08)


@pytest.mark.parametrize("name", PUBLISHED.names)
def test_published_shapes_are_as_large_as_their_names_say(name: str) -> None:
    published = PUBLISHED.get(name)
    shape = published.shape
    shape.require_consistent()
    published.core.draft_of(shape).require_consistent()
    tensors = checkpoint_of(shape, card_of(published.core)).tensors
    tied = shape.vocab_size * shape.hidden_size if shape.family == "opt" else 0  # OPT's head is its table
    nominal = float(name.rsplit("-", 1)[-1][:-1]) * (1e6 if name.endswith("m") else 1e9)
    assert sum(tensor.numel() for tensor in tensors.values()) - tied == pytest.approx(nominal, rel=0.085)
    assert proxy_of(shape, published.core).head_dim == shape.head_dim


def test_a_rank_makes_no_more_than_its_part() -> None:
    shape = PUBLISHED.get("llama-65b")
    down = checkpoint_of(shape.shape, card_of(shape.core)).take("model.layers.70.mlp.down_proj.weight", (8192, 22016))
    part = down[:, 2752:5504]
    assert part.shape == (8192, 2752)
    assert part.untyped_storage().nbytes() == 8192 * 2752 * 2


def test_the_tokenizer_has_the_vocabulary_and_gives_texts_back(tmp_path: Path) -> None:
    write_model(tmp_path, SHAPES["llama"], card_of(), with_weights=False)
    tokenizer = TextTokenizer.load(tmp_path)
    assert len(tokenizer.vocabulary()) == 515
    assert sorted(tokenizer.vocabulary().values()) == list(range(515))
    assert tokenizer.decode(tokenizer.encode("def f(x):\n  return 'ö'")) == "def f(x):\n  return 'ö'"
    assert tokenizer.decode([300, 301]) == " 300 301"


def test_a_card_that_is_damaged_or_of_another_model_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, SHAPES["llama"], card_of(), with_weights=False)
    with pytest.raises(CheckpointError, match="does not fit config"):
        open_checkpoint(tmp_path).take("model.norm.weight", (65,))
    with pytest.raises(CheckpointError, match="has no tensor"):
        open_checkpoint(tmp_path).take("model.norm.bias", (64,))
    (tmp_path / "synthetic.json").write_text('{"title": 1}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path)
