"""Training recipes as data: shapes, steps and rates of each phase, per family."""

from __future__ import annotations

from dataclasses import dataclass

VOCAB_SIZE = 2048
MAX_POSITIONS = 512  # longer positions are never trained, so they are not advertised


@dataclass(frozen=True)
class ModelShape:
    """The sizes of one small decoder."""

    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int


@dataclass(frozen=True)
class Phase:
    """One training phase: a number of steps, the share of peak rate at its start and end, its batches."""

    num_steps: int
    peak_rate: float  # share of the base learning rates
    final_rate: float  # share of the base learning rates at the last step
    flat_share: float  # share of the steps at peak rate before the linear decay
    num_rows: int
    row_length: int
    long_share: float = 0.0  # last share of the steps run with half the rows, twice as long


@dataclass(frozen=True)
class Recipe:
    """Everything that fixes an embedded pair, apart from the text and the seed."""

    family: str
    target: ModelShape
    draft: ModelShape
    target_ce: Phase
    target_unlikelihood: Phase
    draft_ce: Phase
    draft_distil: Phase
    library_share: float = 0.75
    unlikelihood_weight: float = 2.0
    repeated_ngram: int = 5
    own_text_rows: int = 1536
    seed: int = 0


_CE = Phase(1500, 1.0, 0.02, 0.25, 16, 256, long_share=0.12)
_UNLIKELIHOOD = Phase(100, 0.2, 0.02, 0.3, 12, 256)
_DRAFT_CE = Phase(450, 1.0, 0.05, 0.25, 16, 256)
_DRAFT_DISTIL = Phase(1000, 1.0, 0.02, 0.3, 16, 256)

RECIPES = {
    "llama": Recipe(
        "llama",
        ModelShape(256, 704, 4, 4),
        ModelShape(128, 352, 2, 2),
        _CE,
        _UNLIKELIHOOD,
        _DRAFT_CE,
        _DRAFT_DISTIL,
    ),
    "opt": Recipe(
        "opt",
        ModelShape(256, 1024, 4, 4),
        ModelShape(128, 512, 2, 2),
        _CE,
        _UNLIKELIHOOD,
        _DRAFT_CE,
        _DRAFT_DISTIL,
    ),
}
