"""Models that several test files share, made once; no test of the engine reaches for the network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads

import pytest
import torch

from engine.tests.checkpoints import VARIANTS, VOCAB_SIZE, TinyLlama, contrary, perturbed, text_of, write_checkpoint
from engine.tests.decoding import GreedyText, Pair, clear_texts, load, ragged_prompts
from engine.tests.jobs import JobFolder, use_own_locks
from engine.tests.offline.sitecustomize import refuse_connection
from treespec.serving.prompts import read_prompt_file

ROOT = Path(__file__).parents[2]
NUM_TEXTS, TEXT_TOKENS, LONGEST_PROMPT = 6, 24, 40
MANY_TEXTS = 9  # of the pairs that are served in every batch size
DRAFT_NOISE = 0.05  # of each weight's spread: the draft then agrees on about two tokens of three


def pytest_runtest_setup() -> None:
    """Matrices this small are slower on several threads; a placement of an earlier test may have asked for more."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse_connection)


class TinyModels:
    """Checkpoint folders and pairs by variant, written on first use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pairs: dict[str, Pair] = {}

    @staticmethod
    def shape(variant: str) -> TinyLlama:
        """The variant's sizes."""
        return VARIANTS[variant]

    def target(self, variant: str) -> Path:
        """The variant's folder."""
        folder = self._root / variant / "target"
        return folder if folder.exists() else write_checkpoint(folder, VARIANTS[variant])

    def draft(self, variant: str) -> Path:
        """A folder whose model often agrees with the target."""
        folder = self._root / variant / "draft"
        shape = VARIANTS[variant]
        return folder if folder.exists() else write_checkpoint(folder, shape, perturbed(shape.tensors(), DRAFT_NOISE))

    def contrary_draft(self, variant: str) -> Path:
        """A folder whose model never agrees with the target."""
        folder = self._root / variant / "contrary"
        shape = VARIANTS[variant]
        return folder if folder.exists() else write_checkpoint(folder, shape, contrary(shape.tensors()))

    def pair(self, variant: str) -> Pair:
        """Target, draft and prompts with known greedy texts."""
        if variant not in self._pairs:
            shape, folder = VARIANTS[variant], self.target(variant)
            candidates = ragged_prompts(shape.seed, 4 * MANY_TEXTS, LONGEST_PROMPT, shape.vocab_size)
            count = MANY_TEXTS if variant == "gqa" else NUM_TEXTS
            texts = clear_texts(load(folder, torch.float64).decoder, candidates, TEXT_TOKENS, count)
            self._pairs[variant] = Pair(folder, self.draft(variant), texts)
        return self._pairs[variant]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """The random checkpoints of this test run."""
    return TinyModels(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=[*sorted(VARIANTS), "embedded"])
def pair(request: pytest.FixtureRequest, tiny: TinyModels) -> Pair:
    """Every random pair in turn, and the shipped one."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded")
    return tiny.pair(request.param)


@pytest.fixture(scope="session")
def gqa(tiny: TinyModels) -> Pair:
    """The pair with grouped queries, for tests that one pair is enough for."""
    return tiny.pair("gqa")


@pytest.fixture
def job(tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    """Three modes of the grouped-query pair on four prompts."""
    prompts = [text_of(ids) for ids in ragged_prompts(seed=7, count=4, longest=20, vocab_size=VOCAB_SIZE)]
    folder = JobFolder.create(tmp_path, tiny.target("gqa"), tiny.draft("gqa"), prompts)
    use_own_locks(folder.root / "tmp", monkeypatch)
    return folder


@pytest.fixture(scope="session")
def embedded_dir() -> Path:
    """The shipped LLaMA pair."""
    return ROOT / "models" / "embedded" / "llama"


@pytest.fixture(scope="session")
def embedded(embedded_dir: Path) -> Pair:
    """The shipped pair with prompts of the mixed set."""
    target = load(embedded_dir / "target", torch.float64)
    texts = read_prompt_file(ROOT / "prompts" / "mixed.json")
    ids = [target.tokenizer.encode(text)[: 5 + 3 * index] for index, text in enumerate(texts[:24])]
    known: tuple[GreedyText, ...] = clear_texts(target.decoder, ids, TEXT_TOKENS, MANY_TEXTS)
    return Pair(embedded_dir / "target", embedded_dir / "draft", known)
