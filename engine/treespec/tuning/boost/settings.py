"""What a boost-tuning run is, and what must hold of its models before any weight is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treespec.config import hash_model
from treespec.errors import CheckpointError, ConfigError
from treespec.model.tokenizers.text import TextTokenizer

LOSSES = ("kl", "ce")


@dataclass(frozen=True)
class BoostSettings:
    """Everything that fixes the drafts, apart from the training prompts.

    A *sample* is ``sample_tokens`` consecutive tokens of the target's continuation behind everything before them. The
    paper's samples are whole continuations; shorter ones let a draft drop what an earlier draft already knows in the
    middle of a text. How many tokens must match is not given in the paper.
    """

    target: Path
    drafts: tuple[Path, ...]  # starting points: one for all drafts, or one for each
    num_drafts: int = 2
    num_tokens: int = 128  # of the target's continuation behind every prompt
    sample_tokens: int = 128
    match_tokens: int = 4  # a sample whose first so many tokens a draft continues as the target does is dropped
    keep_matched: bool = False  # the control: drop nothing
    loss: str = "kl"  # to the target's distribution, or "ce": cross-entropy of its tokens
    num_steps: int = 400
    batch_rows: int = 16
    learning_rate: float = 0.004  # peak, of the matrices
    seed: int = 0
    dtype: str = "float32"  # of the target
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("num_drafts", "num_tokens", "sample_tokens", "match_tokens", "num_steps", "batch_rows"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(self.loss in LOSSES, "loss", self.loss, ", ".join(LOSSES))
        allowed = f"1 or {self.num_drafts} starting points"
        _require(len(self.drafts) in (1, self.num_drafts), "drafts", f"{len(self.drafts)} folders", allowed)
        divides = self.num_tokens % self.sample_tokens == 0
        _require(divides, "sample_tokens", self.sample_tokens, f"a divisor of num_tokens ({self.num_tokens})")
        allowed = f"at most sample_tokens ({self.sample_tokens})"
        _require(self.match_tokens <= self.sample_tokens, "match_tokens", self.match_tokens, allowed)

    def starting_point(self, number: int) -> Path:
        """Folder that draft ``number`` (from 1) is trained from."""
        return self.drafts[0] if len(self.drafts) == 1 else self.drafts[number - 1]

    def identity(self) -> dict[str, Any]:
        """The settings with the models' contents in place of their paths. Raises CheckpointError or InputFileError."""
        models = {"target": hash_model(self.target), "drafts": [hash_model(folder) for folder in self.drafts]}
        return asdict(self) | models

    def as_json(self) -> dict[str, Any]:
        """The settings for a report."""
        return asdict(self) | {"target": self.target.name, "drafts": [folder.name for folder in self.drafts]}


def digest(value: Any) -> str:
    """Sha256 (hex) of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def require_matching_models(target: Path, drafts: Sequence[Path], num_positions: int) -> None:
    """Refuse other vocabularies than the target's and models with too few positions, from the folders' small files.

    Raises ConfigError or CheckpointError.
    """
    tokens, num_logits = TextTokenizer.load(target).vocabulary(), _config(target).get("vocab_size")
    for folder in (target, *drafts):
        config = _config(folder)
        if TextTokenizer.load(folder).vocabulary() != tokens or config.get("vocab_size") != num_logits:
            raise ConfigError(
                "draft and target have different vocabularies",
                where=f"target {target}, draft {folder}",
                received=f"{num_logits} and {config.get('vocab_size')} entries",
                allowed="the same token for every id, and tables padded alike",
                fix="start from a draft model that was trained with the target's tokenizer",
            )
        positions = config.get("max_position_embeddings")
        if positions is not None and num_positions > positions:
            raise ConfigError(
                "prompts with their continuations are longer than the model's positions",
                where=str(folder),
                received=f"{num_positions} tokens",
                allowed=f"at most {positions}",
                fix="shorten --prompt-tokens or --num-tokens",
            )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("model folder has no readable config.json", where=str(path), received=error) from error
    return config


def _require(holds: bool, name: str, received: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is out of range", where="boost-tuning", received=received, allowed=allowed)
