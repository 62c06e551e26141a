"""The OPT family: parity with transformers, the laws, and inflation, on a random tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.tests.checkpoints import VOCAB_SIZE, character_tokenizer, perturbed
from engine.tests.decoding import (
    PAPER_TREE,
    WIDE_TREE,
    Pair,
    Serving,
    clear_texts,
    load,
    logits_of,
    ragged_prompts,
    serve,
)
from engine.tests.test_inflation import assert_same_function, inflated
from engine.tests.test_parity import assert_greedy_text_equals, logits_in_chunks, reference
from treespec.config import Inflation
from treespec.errors import CheckpointError

HIDDEN, FFN, NUM_LAYERS, NUM_HEADS, MAX_POSITIONS = 48, 96, 2, 4, 128
NUM_TOKENS = 20


def config(**settings: Any) -> dict[str, Any]:
    plain = {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "word_embed_proj_dim": HIDDEN,
        "ffn_dim": FFN,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return plain | settings


def tensors(seed: int) -> dict[str, Tensor]:
    """Seeded weights, every bias and norm among them, so that none of them is left out unnoticed."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=draw)

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + random(HIDDEN, scale=0.1), f"{name}.bias": random(HIDDEN, scale=0.1)}

    def linear(name: str, rows: int, columns: int, gain: float) -> dict[str, Tensor]:
        return {
            f"{name}.weight": random(rows, columns, scale=gain / columns**0.5),
            f"{name}.bias": random(rows, scale=0.2),
        }

    root = "model.decoder."
    out = {
        root + "embed_tokens.weight": random(VOCAB_SIZE, HIDDEN, scale=HIDDEN**-0.5),
        root + "embed_positions.weight": random(MAX_POSITIONS + 2, HIDDEN, scale=HIDDEN**-0.5),
    } | norm(root + "final_layer_norm")
    for layer in range(NUM_LAYERS):
        prefix = f"{root}layers.{layer}."
        out |= norm(prefix + "self_attn_layer_norm") | norm(prefix + "final_layer_norm")
        for name, gain in {"q_proj": 1.5, "k_proj": 1.5, "v_proj": 1.0, "out_proj": 3.0}.items():
            out |= linear(f"{prefix}self_attn.{name}", HIDDEN, HIDDEN, gain)
        out |= linear(prefix + "fc1", FFN, HIDDEN, 1.0) | linear(prefix + "fc2", HIDDEN, FFN, 3.0)
    return out


def write(folder: Path, weights: dict[str, Tensor], **settings: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config(**settings)))
    character_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A target, a draft that often agrees, and prompts with clear greedy texts."""
    root = tmp_path_factory.mktemp("opt")
    target = write(root / "target", tensors(0))
    draft = write(root / "draft", perturbed(tensors(0), 0.05))
    candidates = ragged_prompts(3, 40, 30, VOCAB_SIZE)
    return Pair(target, draft, clear_texts(load(target, torch.float64).decoder, candidates, NUM_TOKENS, 6))


def test_logits_of_a_prompt_in_chunks_equal_transformers(opt: Pair) -> None:
    model = reference(opt.target_folder)
    for text in opt.texts:
        token_ids = [*text.prompt, *text.continuation]
        with torch.no_grad():
            expected = model(torch.tensor([token_ids])).logits[0]
        found = logits_in_chunks(opt.target.decoder, token_ids, 7)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_greedy_text_equals_transformers(opt: Pair) -> None:
    assert_greedy_text_equals(opt, (1, 4))


@pytest.mark.parametrize("expansion", [(), (1,) * 4, WIDE_TREE, PAPER_TREE], ids=str)
@pytest.mark.parametrize("own_draft", [False, True], ids=["draft", "draft = target"])
def test_every_mode_equals_greedy_text_computed_without_a_cache(
    opt: Pair, expansion: tuple[int, ...], own_draft: bool
) -> None:
    served = serve(opt.target, opt.target if own_draft else opt.draft, opt.prompts, Serving(expansion))
    assert served.token_ids == opt.expected(NUM_TOKENS)
    if expansion:
        accepted = [count for steps in served.accepted_per_step for count in steps[1:-1]]
        assert set(accepted) == {len(expansion)} if own_draft else sum(accepted) > 0


@pytest.mark.parametrize("inflation", [Inflation(width_factor=4), Inflation(width_factor=4, num_layers=4)], ids=str)
def test_inflation_preserves_the_function(opt: Pair, inflation: Inflation) -> None:
    larger = inflated(opt.target_folder, inflation)
    assert larger.num_parameters > 5 * opt.target.num_parameters
    assert_same_function(larger, opt)


def test_bfloat16_is_finite(opt: Pair) -> None:
    assert logits_of(load(opt.target_folder, torch.bfloat16).decoder, opt.prompts[1]).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"do_layer_norm_before": False}, r"does not have.*model\.decoder\.final_layer_norm\.bias"),
        ({"word_embed_proj_dim": 24}, r"embed_tokens\.weight' does not fit config\.json"),
        ({"enable_bias": False}, r"does not have.*fc1\.bias"),
        ({"activation_function": "gelu"}, "not supported: activation_function"),
    ],
    ids=str,
)
def test_tensors_of_another_variant_than_the_configuration_says_are_refused(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    folder = write(tmp_path / "variant", tensors(0), **settings)
    with pytest.raises(CheckpointError, match=told):
        load(folder)
