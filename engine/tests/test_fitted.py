"""Drafts whose tables have more or fewer rows than the target's, over the same tokenizer: laws hold, drafts count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.tests.checkpoints import VARIANTS, VOCAB_SIZE, character_tokenizer, perturbed, write_checkpoint
from engine.tests.decoding import Pair
from engine.tests.jobs import JobFolder
from engine.tests.scenarios import Bench, scenario
from engine.tests.test_parallel import served_on
from treespec.audit.production import production_fit
from treespec.config import Sampling
from treespec.kvcache.pool import KVCachePool
from treespec.model.decoder import ForwardBatch, Wanted
from treespec.runner import cache_shape

SHAPE = VARIANTS["gqa"]
SMALLER, LARGER = 90, 160  # the smaller one even lacks characters that texts hold
DRAFTERS = (
    "chain",
    "tree",
    "tree-iid",
    "tree-without-replacement",
    "best",
    "dynamic",
    "auto",
    "two-models",
    "portfolio",
)
SAMPLED = {"mss": "tree-iid", "recursive_rejection": "tree-without-replacement", "sampler_match": "tree"}
SAMPLING = Sampling(temperature=1.2, top_k=4)
NUM_REQUESTS, NUM_TESTS, PROMPT = 500, 100, (17, 120, 33)


def resized(tensors: Mapping[str, Tensor], num_rows: int) -> dict[str, Tensor]:
    """Tables cut, or with rows that would often be the likeliest if they counted."""
    made = dict(tensors)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        surplus = torch.randn(max(0, num_rows - VOCAB_SIZE), SHAPE.hidden_size, generator=torch.Generator())
        made[name] = torch.cat([made[name], surplus])[:num_rows]
    return made


def write_draft(folder: Path, num_rows: int) -> Path:
    """A draft that often agrees, with the target's tokenizer and so many rows in its tables."""
    tensors = resized(perturbed(SHAPE.tensors(), 0.05), num_rows)
    write_checkpoint(folder, SHAPE.with_(vocab_size=num_rows), tensors)
    character_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module", params=[SMALLER, LARGER], ids=["smaller", "larger"])
def bench(request: pytest.FixtureRequest, gqa: Pair, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = write_draft(tmp_path_factory.mktemp("resized") / "draft", request.param)
    scenarios = [scenario("incremental"), *(scenario(name, name) for name in DRAFTERS)]
    scenarios += [
        scenario(rule, drafters, verifier=rule, sampling=SAMPLING, max_new_tokens=4, max_requests_per_batch=64)
        for rule, drafters in SAMPLED.items()
    ]
    return Bench(gqa.target_folder, [folder, gqa.target_folder], scenarios)


@pytest.mark.parametrize("drafters", DRAFTERS)
def test_greedy_output_is_incremental_decodings(bench: Bench, gqa: Pair, drafters: str) -> None:
    served = bench.serve(drafters, gqa.prompts)
    assert [request.output_token_ids for request in served.requests] == gqa.expected(20)
    if drafters != "auto":  # which may find that no tree pays here
        assert sum(profile.num_accepted_tokens for profile in served.profiles) > 0


@pytest.mark.parametrize("verifier", SAMPLED)
def test_sampled_output_has_the_targets_distribution(bench: Bench, verifier: str) -> None:
    fit = production_fit(bench.loaded, bench._scenarios[verifier], PROMPT, NUM_REQUESTS)
    assert fit.holds(NUM_TESTS)
    assert fit.degrees_of_freedom > 20


def test_rows_are_as_wide_as_the_targets(bench: Bench) -> None:
    decoder = bench.loaded.draft_runners[0].decoder
    own_size = decoder._inner.spec.vocab_size  # type: ignore[attr-defined]
    rows = {}
    for wanted in Wanted:
        pool = KVCachePool(cache_shape(decoder, 1, 8), decoder.dtype, decoder.device)
        ids_BN, slots_T = torch.tensor([[17, VOCAB_SIZE - 1]]), torch.arange(2)
        batch = ForwardBatch(ids_BN, torch.arange(2)[None], slots_T, slice(0, 1), 2, None, None, wanted)
        rows[wanted] = decoder.forward(batch, pool).rows
    logits_RV = rows[Wanted.LOGITS]
    assert logits_RV.shape == (2, VOCAB_SIZE)
    assert logits_RV.isfinite().sum(dim=-1).tolist() == [min(own_size, VOCAB_SIZE)] * 2
    assert rows[Wanted.LIKELIEST].tolist() == logits_RV.argmax(dim=-1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [SMALLER, LARGER])
def test_a_draft_on_another_rank_hands_over_as_much(job: JobFolder, num_rows: int) -> None:
    job.placement["drafts"] = [{"path": str(write_draft(job.root / "draft", num_rows))}]
    alone = served_on(job, 1, 1)
    job.placement["draft_placement"] = "own_ranks"
    assert served_on(job, 2, 1) == alone
