"""An inflated target computes the same function at a higher cost, and says that it is inflated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.tests.conftest import TinyModels
from engine.tests.decoding import WIDE_TREE, Pair, Serving, load, logits_of, serve
from treespec.config import Inflation, ModelRef
from treespec.errors import ConfigError
from treespec.model.loader import LoadedModel, load_model
from treespec.parallel.mesh import ParallelMesh


def inflated(folder: Path, inflation: Inflation) -> LoadedModel:
    ref = ModelRef(path=folder, label="example", inflation=inflation)
    return load_model(ref, torch.float32, torch.device("cpu"), ParallelMesh())


def assert_same_function(larger: LoadedModel, pair: Pair) -> None:
    for text in pair.texts[:4]:
        token_ids = [*text.prompt, *text.continuation]
        found, expected = logits_of(larger.decoder, token_ids), logits_of(pair.target.decoder, token_ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("variant", ["mha", "gqa", "tied", "wide-heads"])
@pytest.mark.parametrize(
    "inflation",
    [Inflation(width_factor=4), Inflation(num_layers=5), Inflation(width_factor=4, num_layers=4)],
    ids=["wider", "deeper", "both"],
)
def test_inflation_preserves_the_function(tiny: TinyModels, variant: str, inflation: Inflation) -> None:
    pair = tiny.pair(variant)
    larger = inflated(pair.target_folder, inflation)
    assert larger.num_parameters > 1.5 * pair.target.num_parameters
    assert_same_function(larger, pair)


def test_sixteenfold_width_preserves_the_function(tiny: TinyModels) -> None:
    pair = tiny.pair("tied-gqa")
    larger = inflated(pair.target_folder, Inflation(width_factor=16))
    assert larger.decoder.spec.hidden_size == 16 * 32
    assert_same_function(larger, pair)


def test_inflated_embedded_target_keeps_its_function(embedded: Pair) -> None:
    larger = inflated(embedded.target_folder, Inflation(width_factor=4, num_layers=6))
    assert larger.num_parameters > 10 * embedded.target.num_parameters
    assert_same_function(larger, embedded)


def test_inflated_embedded_opt_target_keeps_its_function(embedded_dir: Path, embedded: Pair) -> None:
    folder = embedded_dir.parent / "opt" / "target"
    plain, larger = load(folder), inflated(folder, Inflation(width_factor=4, num_layers=8))
    assert larger.num_parameters > 20 * plain.num_parameters
    for text in embedded.texts[:2]:
        token_ids = [*text.prompt, *text.continuation]
        found, expected = logits_of(larger.decoder, token_ids), logits_of(plain.decoder, token_ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_inflated_target_accepts_the_same_drafts(gqa: Pair) -> None:
    larger = inflated(gqa.target_folder, Inflation(width_factor=4, num_layers=3))
    plain = serve(gqa.target, gqa.draft, gqa.prompts, Serving(WIDE_TREE))
    served = serve(larger, gqa.draft, gqa.prompts, Serving(WIDE_TREE))
    assert served.token_ids == gqa.expected(Serving().max_new_tokens)
    assert served.accepted_per_step == plain.accepted_per_step


def test_description_names_the_inflated_size(gqa: Pair) -> None:
    larger = inflated(gqa.target_folder, Inflation(width_factor=4))
    assert larger.description == f"example, inflated to {larger.num_parameters / 1e6:.3g}M parameters"
    assert "inflated" not in gqa.target.description


def test_parameters_are_counted_as_the_checkpoint_holds_them(tiny: TinyModels) -> None:
    """A tied table is stored, and counted, once."""
    for variant in ("gqa", "tied"):
        pair = tiny.pair(variant)
        stored = sum(tensor.numel() for tensor in tiny.shape(variant).tensors().values())
        assert pair.target.num_parameters == stored


def test_inflation_never_removes_layers(gqa: Pair) -> None:
    with pytest.raises(ConfigError, match="num_layers 1; allowed: >= 2"):
        inflated(gqa.target_folder, Inflation(num_layers=1))
