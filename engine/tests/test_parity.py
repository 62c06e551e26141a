"""Logits and greedy text equal those of transformers on the same folders; bfloat16 stays close to float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.tests.conftest import TinyModels
from engine.tests.decoding import PAPER_TREE, Pair, Serving, chain_row, load, logits_of, serve
from treespec.model.decoder import Decoder
from treespec.runner import ModelRunner

NUM_TOKENS = 16


def reference(folder: Path) -> Any:
    """The same folder in the library; EOS is an ordinary token, as it is with ``ignore_eos``."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    model.generation_config.eos_token_id = None
    return model


@torch.no_grad()
def reference_greedy(model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """One prompt at a time, so that no padding takes part."""
    rows = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_TOKENS, do_sample=False)
        rows.append(out[0, len(prompt) :].tolist())
    return rows


def logits_in_chunks(decoder: Decoder, token_ids: Sequence[int], chunk: int) -> Tensor:
    """``[T, V]``, the prompt fed chunk after chunk."""
    runner = ModelRunner(decoder, 1, len(token_ids))
    region = runner.allocator.admit()
    logits = []
    for start in range(0, len(token_ids), chunk):
        part = token_ids[start : start + chunk]
        logits.append(runner.result(runner.submit([chain_row(runner, region, part, len(part))])).logits_RV)
        runner.commit([(region, range(len(part)))])
    return torch.cat(logits)


def test_logits_of_a_prompt_in_chunks_equal_transformers(pair: Pair) -> None:
    model = reference(pair.target_folder)
    for text in pair.texts[:4]:
        token_ids = [*text.prompt, *text.continuation]
        with torch.no_grad():
            expected = model(torch.tensor([token_ids])).logits[0]
        found = logits_in_chunks(pair.target.decoder, token_ids, 7)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def assert_greedy_text_equals(pair: Pair, batch_sizes: Iterable[int]) -> None:
    expected = reference_greedy(reference(pair.target_folder), pair.prompts)
    assert len({len(prompt) for prompt in pair.prompts}) > 4, "the prompts are to be ragged"
    for batch_size in batch_sizes:
        serving = Serving(batch_size=batch_size, max_new_tokens=NUM_TOKENS, max_tokens_per_batch=24)
        assert serve(pair.target, None, pair.prompts, serving).token_ids == expected


def test_greedy_text_equals_transformers(pair: Pair) -> None:
    assert_greedy_text_equals(pair, (1, 8))


@pytest.mark.parametrize("pair", ["gqa", "embedded"], indirect=True)
def test_greedy_text_equals_transformers_at_every_batch_size(pair: Pair) -> None:
    assert_greedy_text_equals(pair, range(2, 8))


def test_folder_written_by_transformers_in_shards_is_read_whole(gqa: Pair, tmp_path: Path) -> None:
    reference(gqa.target_folder).save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    (tmp_path / "tokenizer.json").write_bytes((gqa.target_folder / "tokenizer.json").read_bytes())
    prompt = gqa.prompts[2]
    assert torch.equal(logits_of(load(tmp_path).decoder, prompt), logits_of(gqa.target.decoder, prompt))


def test_bfloat16_is_finite_and_close_to_float32(pair: Pair) -> None:
    half = load(pair.target_folder, torch.bfloat16)
    for text in pair.texts[:4]:
        token_ids = [*text.prompt, *text.continuation]
        found, expected = logits_of(half.decoder, token_ids), logits_of(pair.target.decoder, token_ids)
        assert found.dtype is torch.bfloat16
        assert found.isfinite().all()
        similarity = torch.nn.functional.cosine_similarity(found.float(), expected, dim=-1)
        assert similarity.mean() > 0.99
        assert similarity.min() > 0.9


def test_bfloat16_serves_every_mode_to_the_end(tiny: TinyModels) -> None:
    pair = tiny.pair("mha")
    target, draft = (load(folder, torch.bfloat16) for folder in (pair.target_folder, pair.draft_folder))
    for expansion in ((), (1,) * 4, PAPER_TREE):
        served = serve(target, draft, pair.prompts, Serving(expansion))
        assert {len(token_ids) for token_ids in served.token_ids} == {Serving().max_new_tokens}
