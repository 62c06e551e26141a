"""Which text boost-tuning trains on: the target's continuations, what a draft knows of them, and the loss."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.tests.boosting import NUM_TOKENS, boost_networks, endless_texts, silent
from engine.tests.conftest import TinyModels
from treespec.tuning.boost import samples, training
from treespec.tuning.boost.samples import Continuations, continue_prompts, matched_samples, real_samples
from treespec.tuning.boost.settings import BoostSettings
from treespec.tuning.boost.training import fine_tune, kept_loss

EOS = 2


@pytest.fixture(scope="module")
def networks(tiny: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.Module]:
    """A target and two drafts."""
    return boost_networks(tiny, tmp_path_factory.mktemp("drafts"))


@pytest.fixture(scope="module")
def texts(networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Continuations:
    """The target's."""
    return endless_texts(networks["target"], tmp_path_factory.mktemp("texts"))


def greedy(network: nn.Module, context: Sequence[int], num_tokens: int) -> list[int]:
    """One token after the other, without cache or batch."""
    ids = list(context)
    for _ in range(num_tokens):
        ids.append(int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(context) :]


@torch.no_grad()
def test_continuations_are_the_targets_own(networks: dict[str, nn.Module], texts: Continuations) -> None:
    assert len({len(prompt) for prompt in texts.prompts}) > 2
    for prompt, tokens in zip(texts.prompts, texts.tokens_RT.tolist(), strict=True):
        assert tokens == greedy(networks["target"], prompt, NUM_TOKENS)


def test_nothing_is_live_behind_the_first_end_of_text(tmp_path: Path) -> None:
    rows = [[5, EOS, 6, EOS], [EOS, 5, 5, 5], [5, 6, 7, 8], [5, 5, 5, EOS]]
    target = FakeTarget(rows)
    made = continue_prompts(lambda: target, "t", [[9]] * 4, 4, [EOS], tmp_path, silent)
    assert made.live_RT.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert [made.live_tokens(row) for row in range(4)] == [[5, EOS], [EOS], [5, 6, 7, 8], [5, 5, 5, EOS]]
    assert real_samples(made, 2).tolist() == [[True, False], [True, False], [True, True], [True, True]]


class FakeTarget(nn.Module):
    """Continues every batch with given rows."""

    def __init__(self, rows: list[list[int]]) -> None:
        super().__init__()
        self.rows, self.num_calls = torch.tensor(rows), 0
        self.weight = nn.Parameter(torch.zeros(1))
        self.generation_config = argparse.Namespace()

    def generate(self, prefixes: torch.Tensor, **_: Any) -> torch.Tensor:
        """Prefixes and rows."""
        self.num_calls += 1
        return torch.cat([prefixes, self.rows[: len(prefixes)]], dim=1)


def test_a_killed_generation_goes_on_with_the_missing_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "GENERATED_TOGETHER", 2)
    target, prompts = FakeTarget([[5, 6], [7, 8]]), [[3], [4, 4], [5], [6], [7, 7]]

    def make() -> Continuations:
        return continue_prompts(lambda: target, "t", prompts, 2, [EOS], tmp_path, silent)

    first = make()
    assert target.num_calls == 3
    assert make().tokens_RT.tolist() == first.tokens_RT.tolist() and target.num_calls == 3
    next(tmp_path.rglob("00001.json")).unlink()
    assert make().tokens_RT.tolist() == first.tokens_RT.tolist() and target.num_calls == 4
    assert first.tokens_RT.tolist() == [[5, 6], [5, 6], [7, 8], [5, 6], [7, 8]]
    continue_prompts(lambda: target, "another target", prompts, 2, [EOS], tmp_path, silent)
    assert target.num_calls == 7


@torch.no_grad()
@pytest.mark.parametrize(("sample_tokens", "match_tokens"), [(NUM_TOKENS, 2), (6, 1), (6, 3), (8, 4)])
def test_matched_samples_are_those_the_draft_continues_alike(
    networks: dict[str, nn.Module], texts: Continuations, sample_tokens: int, match_tokens: int
) -> None:
    matched_RS = matched_samples(networks["draft"], texts, sample_tokens, match_tokens)
    assert matched_RS.shape == (len(texts), NUM_TOKENS // sample_tokens)
    assert texts.live_RT.all()
    for row, sample in np.ndindex(*matched_RS.shape):
        start, tokens = sample * sample_tokens, texts.tokens_RT[row].tolist()
        alone = greedy(networks["draft"], [*texts.prompts[row], *tokens[:start]], match_tokens)
        assert matched_RS[row, sample] == (alone == tokens[start : start + match_tokens])
    assert matched_RS.any() and (not matched_RS.all())


def test_tokens_behind_the_end_count_as_equal(networks: dict[str, nn.Module], texts: Continuations) -> None:
    live_RT = np.arange(NUM_TOKENS) < np.full((len(texts), 1), 3)
    cut = Continuations(texts.prompts, texts.tokens_RT, live_RT)
    three = matched_samples(networks["draft"], texts, NUM_TOKENS, 3)
    assert matched_samples(networks["draft"], cut, NUM_TOKENS, NUM_TOKENS).tolist() == three.tolist()


@torch.no_grad()
@pytest.mark.parametrize("loss", ["kl", "ce"])
def test_loss_is_the_mean_over_kept_tokens_alone(
    networks: dict[str, nn.Module], texts: Continuations, loss: str
) -> None:
    rng = np.random.default_rng(0)
    rows, kept_RT = np.array([1, 4, 7]), rng.random(texts.tokens_RT.shape) < 0.4
    expected = []
    for row in rows:
        ids = torch.tensor([[*texts.prompts[row], *texts.tokens_RT[row]]])
        first = len(texts.prompts[row])
        log_q, log_p = (networks[name](input_ids=ids).logits[0].log_softmax(-1) for name in ("draft", "target"))
        for t in np.flatnonzero(kept_RT[row]):
            q, p = log_q[first - 1 + t], log_p[first - 1 + t]
            expected.append(float((p.exp() * (p - q)).sum() if loss == "kl" else -q[texts.tokens_RT[row, t]]))
    teacher = networks["target"] if loss == "kl" else None
    measured = float(kept_loss(networks["draft"], teacher, texts, rows, kept_RT))
    assert measured == pytest.approx(np.mean(expected), abs=1e-5)


def test_every_row_with_kept_tokens_is_trained_on_equally_often(
    networks: dict[str, nn.Module], texts: Continuations, tiny: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without any kept sample would make a batch without a loss; tokens behind the end are nobody's."""
    settings = BoostSettings(tiny.target("gqa"), (tiny.draft("gqa"),), num_tokens=24, sample_tokens=12, num_steps=9)
    settings = dataclasses.replace(settings, batch_rows=4)
    kept_RS = np.random.default_rng(1).random((len(texts), 2)) < 0.5
    kept_RS[:3], kept_RS[3:9, 0] = False, True
    ended = dataclasses.replace(texts, live_RT=np.tile(np.arange(NUM_TOKENS) < 20, (len(texts), 1)))
    trained = np.zeros(len(texts), dtype=int)

    def spy(draft: Any, target: Any, samples: Any, rows: np.ndarray, kept_RT: np.ndarray) -> torch.Tensor:
        np.add.at(trained, rows, 1)
        assert len(rows) == 4 and kept_RT[rows].any(axis=1).all() and not kept_RT[:, 20:].any()
        assert (kept_RT[:, :12] == kept_RS[:, :1]).all() and (kept_RT[:, 12:20] == kept_RS[:, 1:]).all()
        return kept_loss(draft, target, samples, rows, kept_RT)

    monkeypatch.setattr(training, "kept_loss", spy)
    fine_tune(copy.deepcopy(networks["draft"]), None, ended, kept_RS, settings, 1, silent)
    assert trained.sum() == 36 and (trained[~kept_RS.any(axis=1)] == 0).all()
    assert np.ptp(trained[kept_RS.any(axis=1)]) <= 1
