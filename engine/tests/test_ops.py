"""Attention, linear maps and rotary positions against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.tests.properties import examples, trees
from treespec.ops import linear
from treespec.ops.attention import tree_attention
from treespec.ops.linear import DenseStorage, Linear, PackedStorage, best_storage
from treespec.ops.rope import RopeTable, rotate
from treespec.tree import TokenTree

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def path_attention(q_HD: Tensor, k_KGD: Tensor, v_KGD: Tensor) -> Tensor:
    """One token that sees all given keys: the textbook formula, head by head ``[H, D]``."""
    num_heads, head_dim = q_HD.shape
    heads_per_group = num_heads // k_KGD.shape[1]
    out = []
    for head in range(num_heads):
        group = head // heads_per_group
        weights = (k_KGD[:, group] @ q_HD[head] / math.sqrt(head_dim)).softmax(0)
        out.append(weights @ v_KGD[:, group])
    return torch.stack(out)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
@given(tree=trees(vocab_size=8, max_nodes=12), context=st.integers(0, 9), seed=st.integers(0, 1000))
@examples(25)
def test_tree_attention_equals_attention_along_every_path(
    num_heads: int, num_kv_heads: int, tree: TokenTree, context: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    n, keys, dim = len(tree), context + len(tree), 8
    q = torch.randn(2, n, num_heads, dim, generator=draw, dtype=torch.float64)
    k, v = (torch.randn(2, keys, num_kv_heads, dim, generator=draw, dtype=torch.float64) for _ in range(2))
    bias = torch.zeros(2, n, keys, dtype=torch.float64)
    bias[:, :, context:] = torch.from_numpy(tree.ancestors).logical_not().double() * -1e300
    bias[bias < 0] = -math.inf
    out = tree_attention(q, k, v, bias)
    for b in range(2):
        for node in range(n):
            seen = [*range(context), *(context + i for i in range(n) if tree.ancestors[node, i])]
            expected = path_attention(q[b, node], k[b, seen], v[b, seen])
            torch.testing.assert_close(out[b, node], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_attention_without_a_mask_sees_every_key(num_kv_heads: int) -> None:
    q, k, v = torch.randn(2, 1, 4, 8), torch.randn(2, 7, num_kv_heads, 8), torch.randn(2, 7, num_kv_heads, 8)
    out = tree_attention(q, k, v, None)
    for b in range(2):
        torch.testing.assert_close(out[b, 0], path_attention(q[b, 0], k[b], v[b]), rtol=0, atol=1e-5)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed_weights_multiply_as_dense_ones(dtype: torch.dtype, rows: int, with_bias: bool) -> None:
    draw = torch.Generator().manual_seed(rows)
    weight, x = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((96, 48), (rows, 48)))
    bias = torch.randn(96, generator=draw).to(dtype) if with_bias else None
    found = Linear(PackedStorage(weight), bias)(x)
    assert found.dtype is dtype
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    relative = (found.double() - exact).abs().max() / exact.abs().max()
    assert relative < (1e-6 if dtype is torch.float32 else 1e-2)


@needs_packing
@pytest.mark.parametrize("leading", [(2, 3), (1, 1), (3,), (1, 2), (0,), (2, 0)], ids=str)
def test_packed_weights_take_any_leading_dimensions(leading: tuple[int, ...]) -> None:
    weight, x = torch.randn(24, 16), torch.randn(*leading, 16)
    torch.testing.assert_close(PackedStorage(weight).multiply(x, None), F.linear(x, weight), rtol=0, atol=1e-5)


@needs_packing
def test_large_float32_weights_are_packed_and_small_ones_are_not() -> None:
    assert isinstance(best_storage(torch.ones(512, 512)), PackedStorage)
    assert isinstance(best_storage(torch.ones(32, 32)), DenseStorage)
    assert isinstance(best_storage(torch.ones(512, 512, dtype=torch.float64)), DenseStorage)


@needs_packing
def test_packing_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(PackedStorage):
        def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
            return 1.01 * super().multiply(x, bias)

    monkeypatch.setattr(linear, "PackedStorage", Wrong)
    assert isinstance(best_storage(torch.randn(512, 512)), DenseStorage)


@given(
    head_dim=st.sampled_from([2, 8, 64]), base=st.sampled_from([500.0, 10000.0, 500000.0]), position=st.integers(0, 255)
)
@examples(60)
def test_rotation_turns_pairs_of_coordinates_by_the_angle_of_the_position(
    head_dim: int, base: float, position: int
) -> None:
    """Su et al. 2021, equation 34: coordinates i and i + D/2 as a complex number times exp(i p theta_i)."""
    table = RopeTable.build(256, head_dim, base, torch.float64, CPU)
    x = torch.randn(2, 1, 3, head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(position))
    found = rotate(x, *table.at(torch.tensor([[position], [position]])))
    half = head_dim // 2
    theta = base ** (-torch.arange(half, dtype=torch.float64) * 2 / head_dim)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * position * theta)
    # The table is made in float32: an angle of 255 is known to about 1e-5.
    torch.testing.assert_close(found, torch.cat([turned.real, turned.imag], -1), rtol=0, atol=1e-4)


def test_scores_of_rotated_heads_depend_on_distance_only() -> None:
    table = RopeTable.build(64, 16, 10000.0, torch.float32, CPU)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def score(query_position: int, key_position: int) -> float:
        q_at = rotate(q, *table.at(torch.tensor([[query_position]])))
        k_at = rotate(k, *table.at(torch.tensor([[key_position]])))
        return float((q_at * k_at).sum())

    assert score(9, 4) == pytest.approx(score(45, 40), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-4)


def test_every_head_of_a_token_is_rotated_by_its_own_position() -> None:
    table = RopeTable.build(8, 4, 10000.0, torch.float32, CPU)
    x = torch.randn(2, 3, 5, 4)
    positions = torch.tensor([[0, 3, 7], [7, 1, 1]])
    found = rotate(x, *table.at(positions))
    for b in range(2):
        for n in range(3):
            alone = rotate(x[b, n].view(1, 1, 5, 4), *table.at(positions[b, n].view(1, 1)))
            assert torch.equal(found[b, n], alone[0, 0])
