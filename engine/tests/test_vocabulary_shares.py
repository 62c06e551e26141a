"""What the driver learns of logits that lie on several ranks: whole rows, or the likeliest token of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.tests.conftest import TinyModels
from engine.tests.decoding import chain_row
from engine.tests.properties import examples
from treespec.config import ModelRef, Sampling
from treespec.model.loader import load_model
from treespec.ops.sampling import LikeliestRows, TargetRows
from treespec.parallel.collectives import Alone
from treespec.parallel.mesh import ParallelMesh
from treespec.parallel.vocabulary import likeliest, whole_logits
from treespec.runner import ModelRunner, Wanted

Find = Callable[[Tensor, int, ParallelMesh, "Neighbours"], Tensor]


class Neighbours(Alone):
    """The ranks of one stage, one after the other: the driver comes last and finds what the others handed in."""

    def __init__(self, mesh: ParallelMesh, handed_in: list[Tensor]) -> None:
        self._is_driver = mesh.is_driver
        self._handed_in = handed_in

    def gather(self, x: Tensor) -> list[Tensor]:
        if self._is_driver:
            return [x, *self._handed_in]
        self._handed_in.append(x)
        return []


def found(find: Find, logits_RV: Tensor, degree: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The driver's result, what the others got, and what they handed in."""
    V, handed_in, others, result = logits_RV.shape[1], [], [], logits_RV
    for rank in [*range(1, degree), 0]:
        mesh = ParallelMesh(degree, rank=rank)
        share = mesh.share(V)
        part = find(logits_RV[:, share.start : share.stop], V, mesh, Neighbours(mesh, handed_in))
        if mesh.is_driver:
            result = part
        else:
            others.append(part)
    return result, others, handed_in


@given(
    degree=st.integers(1, 5), rows=st.integers(0, 4), V=st.integers(5, 23), levels=st.integers(1, 4), seed=st.integers()
)
@examples(150)
def test_shares_give_what_the_whole_gives(degree: int, rows: int, V: int, levels: int, seed: int) -> None:
    """Few levels make ties common, inside a share and across shares; all values are negative, as padding is not."""
    draw = torch.Generator().manual_seed(seed % (1 << 63))
    logits_RV = -1.0 - torch.randint(levels, (rows, V), generator=draw).float()
    tokens_R, others, handed_in = found(likeliest, logits_RV, degree)
    assert tokens_R.tolist() == logits_RV.argmax(dim=-1).tolist()
    assert all(len(part) == 0 for part in others)
    assert all(x.shape == (rows, 2) for x in handed_in)
    whole_RV, others, handed_in = found(whole_logits, logits_RV, degree)
    assert torch.equal(whole_RV, logits_RV)
    assert all(len(part) == 0 for part in others)
    assert len({x.shape for x in handed_in}) <= 1
    assert not handed_in or rows


def test_the_lowest_of_equal_tokens_wins_across_ranks() -> None:
    logits_RV = torch.tensor([[0.0, 3.0, 1.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0], [-9.0, -8.0, -7.0, -8.0, -7.0]])
    assert found(likeliest, logits_RV, 3)[0].tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_neighbouring_values_and_the_largest_token_ids_survive_the_way(dtype: torch.dtype) -> None:
    V = 300_001
    logits_RV = torch.zeros(1, V, dtype=dtype)
    logits_RV[0, 7] = 1.0
    logits_RV[0, V - 1] = torch.nextafter(torch.ones((), dtype=dtype), torch.full((), 2.0, dtype=dtype))
    assert found(likeliest, logits_RV, 2)[0].tolist() == [V - 1]


def test_a_runner_tells_tokens_where_only_they_are_wanted(tiny: TinyModels) -> None:
    model = load_model(ModelRef(path=tiny.target("gqa")), torch.float32, torch.device("cpu"), ParallelMesh())
    runs = []
    for wanted in Wanted:
        runner = ModelRunner(model.decoder, 1, 16)
        runs.append(runner.result(runner.submit([chain_row(runner, runner.allocator.admit(), [5, 6, 7], 2)], wanted)))
    logits, tokens = runs
    assert tokens.starts == logits.starts
    assert tokens.rows.tolist() == logits.logits_RV.argmax(dim=-1).tolist()
    with pytest.raises(AssertionError, match="not asked for"):
        assert tokens.logits_RV is None


def test_rows_of_tokens_are_the_distributions_of_temperature_0() -> None:
    logits_TV = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 0.0]])
    rules = [Sampling(temperature=0.0)] * 2
    known, told = TargetRows(logits_TV, rules), LikeliestRows(logits_TV.argmax(dim=-1), rules, 3)
    assert len(told) == len(known)
    assert told.likeliest() == known.likeliest()
    assert torch.equal(told.probabilities([1, 0]), known.probabilities([1, 0]))
    with pytest.raises(AssertionError, match="nothing is drawn"):
        LikeliestRows(torch.tensor([1]), [Sampling(temperature=1.0)], 3)
