"""Rows become one padded batch, and the pool keeps what commits ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples, trees
from treespec.kvcache.allocator import SlotAllocator, SlotMoves
from treespec.kvcache.pool import CacheShape, KVCachePool
from treespec.model.decoder import ForwardBatch
from treespec.runner import ForwardRow
from treespec.runner.batch import Stripes, pack_rows

CPU = torch.device("cpu")
NUM_REGIONS, CAPACITY = 5, 40


def pack(rows: list[ForwardRow], allocator: SlotAllocator) -> ForwardBatch:
    return pack_rows(rows, allocator, Stripes(1, allocator.region_capacity), torch.float32, CPU)


def row_after(
    allocator: SlotAllocator, region: int, visible: np.ndarray, num_logits: int, first_token: int = 0
) -> ForwardRow:
    """The last rows of ``visible`` lease slots after the ones that an earlier run holds."""
    num_tokens, num_slots = visible.shape
    parent = None
    if num_slots > num_tokens:
        parent = allocator.lease(region, num_slots - num_tokens)
    lease = allocator.lease(region, num_tokens, parent)
    ids = np.arange(first_token, first_token + num_tokens)
    return ForwardRow(lease, ids, ids + 100, visible, num_logits)


@st.composite
def batches(draw: st.DrawFn) -> tuple[SlotAllocator, list[ForwardRow]]:
    """Rows of several requests: contexts of any length, and any part of a tree whose ancestors hold slots."""
    allocator = SlotAllocator(NUM_REGIONS, CAPACITY)
    for region in range(NUM_REGIONS):
        context = draw(st.integers(0, 20))
        allocator.admit()
        allocator.lease(region, CAPACITY)
        allocator.commit(region, range(context))
    rows = []
    for region in draw(st.permutations(range(NUM_REGIONS)))[: draw(st.integers(1, NUM_REGIONS))]:
        ancestors = draw(trees(vocab_size=8, max_nodes=9)).ancestors
        num_earlier = draw(st.integers(0, len(ancestors) - 1))
        visible = ancestors[num_earlier:]
        rows.append(row_after(allocator, region, visible, draw(st.integers(0, len(visible))), 10 * region))
    return allocator, rows


@given(case=batches())
@examples(100)
def test_a_token_sees_its_context_and_its_visible_slots_and_nothing_else(
    case: tuple[SlotAllocator, list[ForwardRow]],
) -> None:
    allocator, rows = case
    batch = pack(rows, allocator)
    num_tokens = batch.ids_BN.shape[1]
    contexts = [allocator.context_length(row.lease.region) for row in rows]
    assert batch.num_keys == max(c + row.visible.shape[1] for c, row in zip(contexts, rows, strict=True))
    for b, (row, context) in enumerate(zip(rows, contexts, strict=True)):
        for token in range(num_tokens):
            expected = np.full(batch.num_keys, -np.inf, dtype=np.float32)
            expected[:context] = 0
            real = min(token, len(row.token_ids) - 1)  # padding repeats the last token
            expected[context : context + row.visible.shape[1]][row.visible[real]] = 0
            found = np.zeros(batch.num_keys) if batch.bias_BNK is None else batch.bias_BNK[b, token].numpy()
            np.testing.assert_array_equal(found, expected)


@given(case=batches())
@examples(100)
def test_padding_repeats_the_last_token_and_touches_no_other_slot(
    case: tuple[SlotAllocator, list[ForwardRow]],
) -> None:
    allocator, rows = case
    batch = pack(rows, allocator)
    slots_BN = batch.slots_T.view(batch.ids_BN.shape)
    for b, row in enumerate(rows):
        n = len(row.token_ids)
        own = allocator.slots(row.lease)
        for found, values in ((batch.ids_BN, row.token_ids), (batch.positions_BN, row.positions), (slots_BN, own)):
            assert found[b, :n].tolist() == values.tolist()
            assert set(found[b, n:].tolist()) <= {int(values[-1])}


@given(case=batches())
@examples(100)
def test_logits_are_wanted_of_the_last_tokens_of_each_row(case: tuple[SlotAllocator, list[ForwardRow]]) -> None:
    allocator, rows = case
    batch = pack(rows, allocator)
    num_tokens = batch.ids_BN.shape[1]
    wanted = [
        b * num_tokens + token
        for b, row in enumerate(rows)
        for token in range(len(row.token_ids))
        if token >= len(row.token_ids) - row.num_logits
    ]
    found = list(range(len(rows) * num_tokens)) if batch.logit_rows is None else batch.logit_rows.tolist()
    assert found == wanted


@given(case=batches())
@examples(50)
def test_keys_are_read_from_the_regions_of_the_rows(case: tuple[SlotAllocator, list[ForwardRow]]) -> None:
    allocator, rows = case
    batch = pack(rows, allocator)
    pool = numbered_pool()
    k_BKGD, v_BKGD = pool.read(1, batch.regions, batch.num_keys)
    for b, row in enumerate(rows):
        start = row.lease.region * CAPACITY
        for found, kind in ((k_BKGD, 0), (v_BKGD, 1)):
            assert torch.equal(found[b], pool.kv_2LSGD[kind, 1, start : start + batch.num_keys])


def test_adjacent_regions_are_read_without_a_copy() -> None:
    allocator = SlotAllocator(3, 4)
    for _ in range(3):
        allocator.admit()
    rows = [row_after(allocator, region, np.tri(1, dtype=bool), 1) for region in (1, 2)]
    batch = pack(rows, allocator)
    assert batch.regions == slice(1, 3)
    pool = KVCachePool(CacheShape(1, 1, 2, 3, 4), torch.float32, CPU)
    k_BKGD, _ = pool.read(0, batch.regions, 1)
    assert k_BKGD.untyped_storage().data_ptr() == pool.kv_2LSGD.untyped_storage().data_ptr()


def numbered_pool() -> KVCachePool:
    """Every slot of every layer holds numbers of its own."""
    pool = KVCachePool(CacheShape(2, 2, 3, NUM_REGIONS, CAPACITY), torch.float32, CPU)
    pool.kv_2LSGD.copy_(torch.arange(pool.kv_2LSGD.numel()).view(pool.kv_2LSGD.shape))
    return pool


@given(offsets=st.lists(st.sets(st.integers(0, 19), min_size=1).map(sorted), min_size=1, max_size=NUM_REGIONS))
@examples(100)
def test_moves_whose_sources_are_also_targets_lose_nothing(offsets: list[list[int]]) -> None:
    """Compacting a path moves slot 3 to 1 and 4 to 3 in one go."""
    pool = numbered_pool()
    before = pool.kv_2LSGD.clone()
    allocator = SlotAllocator(NUM_REGIONS, CAPACITY)
    moves = []
    for region, path in enumerate(offsets):
        allocator.admit()
        allocator.lease(region, 20)
        moves.append(allocator.commit(region, path))
    pool.move(moves)
    for region, path in enumerate(offsets):
        start = region * CAPACITY
        kept = pool.kv_2LSGD[:, :, start : start + len(path)]
        assert torch.equal(kept, before[:, :, [start + offset for offset in path]])


def test_sources_are_read_before_any_target_is_written() -> None:
    pool = numbered_pool()
    before = pool.kv_2LSGD.clone()
    pool.move([SlotMoves(np.array([0, 1, 2]), np.array([1, 2, 0]))])
    assert torch.equal(pool.kv_2LSGD[:, :, :3], before[:, :, [2, 0, 1]])
    assert torch.equal(pool.kv_2LSGD[:, :, 3:], before[:, :, 3:])


NO_SLOTS = SlotMoves(np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.mark.parametrize("moves", [[], [NO_SLOTS]], ids=["none", "empty"])
def test_no_moves_change_nothing(moves: list[SlotMoves]) -> None:
    pool = numbered_pool()
    before = pool.kv_2LSGD.clone()
    pool.move(moves)
    assert torch.equal(pool.kv_2LSGD, before)


def test_written_keys_and_values_stand_in_their_slots() -> None:
    pool = KVCachePool(CacheShape(2, 2, 3, 2, 4), torch.float32, CPU)
    k, v = torch.randn(3, 2, 3), torch.randn(3, 2, 3)
    pool.write(1, torch.tensor([6, 0, 5]), k, v)
    assert torch.equal(pool.kv_2LSGD[0, 1, [6, 0, 5]], k)
    assert torch.equal(pool.kv_2LSGD[1, 1, [6, 0, 5]], v)
    assert pool.kv_2LSGD[:, 0].count_nonzero() == 0
    assert pool.kv_2LSGD[:, 1, [1, 2, 3, 4, 7]].count_nonzero() == 0


def test_size_of_a_cache_is_that_of_its_tensors() -> None:
    shape = CacheShape(num_layers=3, num_kv_heads=2, head_dim=8, num_regions=4, region_capacity=16)
    for dtype in (torch.float32, torch.bfloat16):
        pool = KVCachePool(shape, dtype, CPU)
        assert shape.num_bytes(dtype) == pool.kv_2LSGD.numel() * pool.kv_2LSGD.element_size()
