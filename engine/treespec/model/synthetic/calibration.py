"""Finds the noise, and the share of misses, with which a draft agrees as often as asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from treespec.errors import ConfigError
from treespec.model.decoder import Decoder
from treespec.model.families.registry import FAMILIES
from treespec.model.offload.keeper import Resident
from treespec.model.synthetic.agreement import Measured, Trajectories, measure
from treespec.model.synthetic.card import Knobs, SyntheticCard
from treespec.model.synthetic.checkpoint import SyntheticCheckpoint, sharing
from treespec.model.synthetic.presets import Wanted
from treespec.model.synthetic.shapes import Core, ModelShape
from treespec.parallel.mesh import ParallelMesh

TOLERANCE = 0.03  # beyond it a calibration has failed
MAX_ROUNDS = 8
MAX_NOISE, MAX_MISSES = 8.0, 0.6
PROXY_TAIL_LAYERS, PROXY_EXTRA_HEADS, PROXY_VOCABULARY = 3, 1, 16384
SMALL_MODEL = 20_000_000  # parameters, tables included: measured as it is and not by proxy
Log = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """Knobs and what a model with them measured on prompts that they were not chosen on."""

    knobs: Knobs
    measured: Measured
    measured_on: ModelShape


def proxy_of(shape: ModelShape, core: Core) -> ModelShape:
    """A cheaper target with the same draft, vocabulary and noise: agreement hardly depends on anything else."""
    num_elements = 2 * shape.vocab_size * shape.hidden_size + 12 * shape.num_layers * shape.hidden_size**2
    group = shape.num_heads // shape.num_kv_heads
    heads = min(shape.num_heads, core.hidden_size // shape.head_dim + PROXY_EXTRA_HEADS * group)
    if num_elements <= SMALL_MODEL or heads % group:
        return shape
    return replace(
        shape,
        vocab_size=min(shape.vocab_size, PROXY_VOCABULARY),
        hidden_size=heads * shape.head_dim,
        num_heads=heads,
        num_kv_heads=heads // group,
        ffn_size=min(shape.ffn_size, core.ffn_size + shape.head_dim),
        num_layers=min(shape.num_layers, core.num_layers + PROXY_TAIL_LAYERS),
    )


def build(shape: ModelShape, card: SyntheticCard, dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder that a card describes, whole, on the CPU."""
    nowhere = Path("synthetic")
    checkpoint = SyntheticCheckpoint.of(nowhere, shape, card)
    config = shape.config(card.dtype)
    family = FAMILIES.get(config["architectures"][0])
    spec = family.spec(config, nowhere)
    weights = family.read_weights(spec, checkpoint)
    device = torch.device("cpu")
    keeper = sharing(checkpoint, Resident(dtype, device))
    return family.decoder(spec, weights, dtype, device, ParallelMesh(), keeper=keeper)


def measure_pair(shape: ModelShape, card: SyntheticCard, settings: Trajectories) -> Measured:
    """Agreement of a target of this shape with its draft."""
    draft = build(card.core_sizes.draft_of(shape), card)
    return measure(build(shape, card), draft, settings)


def calibrate(shape: ModelShape, card: SyntheticCard, wanted: Wanted, settings: Trajectories, log: Log) -> Calibration:
    """Multiplies both knobs by how far the misses are from what is wanted, until they are close.

    Of the tokens that are not missed altogether, the share that is not the likeliest grows about in proportion to the
    noise. Raises ConfigError if it cannot be reached.
    """
    proxy = proxy_of(shape, card.core_sizes)
    settings = replace(settings, is_sampled=wanted.is_sampled)
    knobs, nearest = wanted.start, (float("inf"), wanted.start)
    for _ in range(MAX_ROUNDS):
        found = measure_pair(proxy, card.model_copy(update={"knobs": knobs}), settings)
        log(f"noise {knobs.noise:.4f}, misses {knobs.miss_share:.4f}: " + " ".join(f"{s:.3f}" for s in found.top_k))
        distance = found.furthest(wanted.shares)
        nearest = min(nearest, (distance, knobs), key=lambda tried: tried[0])
        if distance <= wanted.close_enough:
            break
        knobs = _corrected(knobs, found.top_k, wanted)
    distance, knobs = nearest
    if distance > TOLERANCE:
        raise ConfigError(
            "the agreement cannot be set for this shape",
            received=f"off by {distance:.3f} at best, in {MAX_ROUNDS} rounds",
            allowed=TOLERANCE,
            fix="choose another agreement, a draft with a wider residual, or more requests to measure on",
        )
    fresh = replace(settings, num_requests=2 * settings.num_requests, seed=settings.seed + 1)
    return Calibration(knobs, measure_pair(proxy, card.model_copy(update={"knobs": knobs}), fresh), proxy)


def _corrected(knobs: Knobs, top_k: tuple[float, ...], wanted: Wanted) -> Knobs:
    """The next guess; rounded, so that a card can be read."""
    noise, misses = knobs.noise, knobs.miss_share
    if len(wanted.shares) == 1:
        noise *= _ratio(1 - wanted.shares[0], 1 - top_k[0])
    else:
        misses *= _ratio(1 - wanted.shares[-1], 1 - top_k[-1])
        # The first two shares, or one of them would be met at the cost of the other.
        noise *= _ratio(1 - sum(wanted.shares[:2]) / 2 / wanted.shares[-1], 1 - sum(top_k[:2]) / 2 / top_k[-1])
    noise, misses = min(noise, MAX_NOISE), min(misses, MAX_MISSES)
    return knobs.model_copy(update={"noise": round(noise, 4), "miss_share": round(misses, 4)})


def _ratio(wanted: float, found: float) -> float:
    return min(4.0, max(0.25, wanted / max(found, 1e-3)))
