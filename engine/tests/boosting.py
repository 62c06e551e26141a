"""A random target with two drafts as trainable networks, and the target's text, for the tests of boost-tuning."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from engine.tests.checkpoints import VARIANTS, perturbed, write_checkpoint
from engine.tests.conftest import TinyModels
from engine.tests.decoding import ragged_prompts
from treespec.tuning.boost.loop import load_network
from treespec.tuning.boost.samples import Continuations, continue_prompts

NUM_TOKENS = 24


def silent(line: str) -> None:
    """No talk."""


def boost_networks(tiny: TinyModels, folder: Path) -> dict[str, nn.Module]:
    """A target and two different drafts that often agree with it."""
    shape = VARIANTS["gqa"]
    write_checkpoint(folder / "other", shape, perturbed(shape.tensors(), 0.07, seed=7))
    folders = {"target": tiny.target("gqa"), "draft": tiny.draft("gqa"), "other": folder / "other"}
    return {name: load_network(path, "cpu", torch.float32) for name, path in folders.items()}


def endless_texts(target: nn.Module, folder: Path) -> Continuations:
    """The target's text behind ragged prompts, which no token ends."""
    prompts = ragged_prompts(seed=3, count=12, longest=14, vocab_size=128)
    return continue_prompts(lambda: target, "t", prompts, NUM_TOKENS, [], folder, silent)
