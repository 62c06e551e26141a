"""Errors, registry, whole files, the stopwatch and the mesh."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tests.properties import examples
from treespec import errors
from treespec.errors import OutputError, TreespecError
from treespec.files import write_atomically
from treespec.metrics import stopwatch
from treespec.metrics.stopwatch import Stopwatch
from treespec.parallel.mesh import ParallelMesh
from treespec.registry import Registry


def test_error_tells_what_where_received_allowed_and_fix_in_this_order() -> None:
    error = TreespecError("it broke", fix="mend it", allowed="more", received="less", where="there")
    assert str(error) == "it broke; where: there; received: less; allowed: more; fix: mend it"


def test_error_leaves_out_what_is_not_known() -> None:
    assert str(TreespecError("it broke", received=0)) == "it broke; received: 0"


def test_error_is_one_line_whatever_it_quotes() -> None:
    assert str(TreespecError("it broke", received="line 1\n    line 2\n")) == "it broke; received: line 1 line 2"


def test_every_error_of_a_user_is_a_treespec_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 7
    assert all(issubclass(kind, TreespecError) for kind in kinds)


def test_registry_returns_what_was_registered() -> None:
    registry = Registry("colour", {"red": 1})
    registry.register("blue")(2)
    assert (registry.get("red"), registry.get("blue")) == (1, 2)


def test_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(TreespecError, match=r"^unknown colour; received: 'green'; allowed: blue, red$"):
        Registry("colour", {"red": 1, "blue": 2}).get("green")


def test_registering_a_name_twice_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="'red' is registered twice"):
        Registry("colour", {"red": 1}).register("red")(2)


def test_registry_does_not_share_the_dictionary_it_was_given() -> None:
    items = {"red": 1}
    Registry("colour", items).register("blue")(2)
    assert items == {"red": 1}


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    write_atomically(path, "new\n")
    assert path.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@given(charges=st.lists(st.tuples(st.sampled_from(Stopwatch.PARTS), st.integers(0, 10**12)), max_size=30))
@examples(100)
def test_parts_of_a_stopwatch_sum_to_the_wall_time(charges: list[tuple[str, int]]) -> None:
    now = 10**15
    clock = pytest.MonkeyPatch()
    clock.setattr(stopwatch.time, "monotonic_ns", lambda: now)
    try:
        watch = Stopwatch()
        spent = dict.fromkeys(Stopwatch.PARTS, 0)
        for part, duration_ns in charges:
            now += duration_ns
            watch.charge(part)
            spent[part] += duration_ns
        assert watch.now_us() == sum(spent.values()) // 1000
        assert watch.split_us() == {part: ns // 1000 for part, ns in spent.items()}
        assert 0 <= watch.now_us() - sum(watch.split_us().values()) < len(Stopwatch.PARTS)
    finally:
        clock.undo()


def test_stopwatch_measures_real_time() -> None:
    watch = Stopwatch()
    time.sleep(0.02)
    watch.charge("forward")
    assert 20_000 <= watch.split_us()["forward"] <= watch.now_us()


@given(num_layers=st.integers(1, 40), tensor_degree=st.integers(1, 4), pipeline_degree=st.integers(1, 4))
@examples(100)
def test_ranks_of_a_mesh_hold_every_layer_and_head_once(
    num_layers: int, tensor_degree: int, pipeline_degree: int
) -> None:
    num_heads = 8 * tensor_degree
    meshes = [ParallelMesh(tensor_degree, pipeline_degree, r) for r in range(tensor_degree * pipeline_degree)]
    held = [pair for mesh in meshes for pair in product(mesh.layers(num_layers), mesh.heads(num_heads))]
    assert sorted(held) == list(product(range(num_layers), range(num_heads)))
    shares = [len(mesh.layers(num_layers)) for mesh in meshes]
    assert max(shares) - min(shares) <= 1


def test_one_rank_holds_everything() -> None:
    mesh = ParallelMesh()
    assert (mesh.num_ranks, list(mesh.layers(3)), list(mesh.heads(2))) == (1, [0, 1, 2], [0, 1])
