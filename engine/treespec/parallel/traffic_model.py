"""How much ranks tell each other, from shapes alone; torch-free.

A micro-batch of B requests with N tokens each crosses the model as B x N x M hidden numbers. In a stage of several
tensor ranks every rank holds a part of each matrix, so that what it computes is a summand of these numbers: they are
summed after the attention and after the FFN of each layer, and once more after the embedding, of which a rank knows its
own rows only. Every rank of a stage hands the numbers to its counterpart in the next stage. At the end the ranks of
the last stage hand in what is wanted of R rows: their share of V logits, padded to the largest share, or two numbers.
The driver tells the others, twice per command: what is to come, then the numbers themselves.

Bytes are payload handed over per rank (``treespec.metrics.traffic``). One rank tells nobody anything.

Legend: B requests, N new tokens, K key slots, R rows whose result is wanted, M hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treespec.metrics.traffic import Traffic
from treespec.parallel.mesh import ParallelMesh

NUMBER_BYTES = 8  # of commands, and of a candidate's value and token
COMMAND_NUMBERS = 4  # what to do, with which model, in how many parts, of how many numbers
PART_NUMBERS = 7  # owner, B, N, K, R, whether there is a mask, what is wanted
MOVE_NUMBERS = 2  # owner, slots
MASK_BITS = 64  # per number


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that decide what travels."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    dtype_bytes: int


@dataclass(frozen=True)
class PassShape:
    """One micro-batch."""

    num_requests: int
    num_tokens: int  # per request, padding included
    num_keys: int
    num_rows: int  # R
    names_rows: bool  # whether the rows are listed; otherwise all B x N are wanted
    has_mask: bool
    only_likeliest: bool

    @property
    def told_numbers(self) -> int:
        """Ids, positions and slots of the tokens, regions of the requests, the listed rows, the mask's bits."""
        B, N = self.num_requests, self.num_tokens
        mask = -(-B * N * self.num_keys // MASK_BITS) if self.has_mask else 0
        return PART_NUMBERS + 3 * B * N + B + (self.num_rows if self.names_rows else 0) + mask


def pass_traffic(shape: PassShape, sizes: ModelSizes, mesh: ParallelMesh) -> Traffic:
    """What the mesh's rank hands over while a micro-batch crosses a model that all ranks hold together."""
    traffic = Traffic()
    hidden_bytes = shape.num_requests * shape.num_tokens * sizes.hidden_size * sizes.dtype_bytes
    if mesh.tensor_degree > 1:
        num_sums = 2 * len(mesh.layers(sizes.num_layers)) + mesh.is_first_stage
        traffic.count("sum", num_sums * hidden_bytes, num_sums)
        if mesh.is_last_stage and shape.num_rows:
            share_bytes = mesh.largest_share(sizes.vocab_size) * sizes.dtype_bytes
            row_bytes = 2 * NUMBER_BYTES if shape.only_likeliest else share_bytes
            traffic.count("gather", shape.num_rows * row_bytes)
    if not mesh.is_last_stage:
        traffic.count("send", hidden_bytes)
    return traffic


def told_pass_traffic(shapes: Sequence[PassShape], mesh: ParallelMesh) -> Traffic:
    """What the rank tells the others before a pass in these micro-batches: all of them in one command."""
    return _command(sum(shape.told_numbers for shape in shapes), mesh)


def told_commit_traffic(num_moved: Sequence[int], mesh: ParallelMesh) -> Traffic:
    """What it tells them of a commit that copies so many slots in the caches of each owner; nothing without copies."""
    copies = [count for count in num_moved if count]
    return _command(sum(MOVE_NUMBERS + 2 * count for count in copies), mesh) if copies else Traffic()


def returned_traffic(shape: PassShape, sizes: ModelSizes) -> Traffic:
    """What an owner that does not drive returns of a draft model's pass."""
    traffic = Traffic()
    if shape.num_rows:
        row_bytes = NUMBER_BYTES if shape.only_likeliest else sizes.vocab_size * sizes.dtype_bytes
        traffic.count("draft", shape.num_rows * row_bytes)
    return traffic


def _command(num_numbers: int, mesh: ParallelMesh) -> Traffic:
    traffic = Traffic()
    if mesh.is_driver and mesh.num_ranks > 1:
        traffic.count("command", NUMBER_BYTES * (COMMAND_NUMBERS + num_numbers), 2)
    return traffic
