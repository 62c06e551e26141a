"""How many examples a property is tried on; the same ones in every run, so that a failure can be repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from treespec.tree import TokenTree, TreeBuilder


def examples(count: int) -> Callable:
    """Settings of a property that is cheap enough for ``count`` examples."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def expansions(max_nodes: int = 48) -> st.SearchStrategy[tuple[int, ...]]:
    """Non-empty expansions whose trees stay small."""
    widths = st.lists(st.integers(1, 3), min_size=1, max_size=8).map(tuple)
    return widths.filter(lambda expansion: num_tree_nodes(expansion) <= max_nodes)


def num_tree_nodes(expansion: tuple[int, ...]) -> int:
    """Nodes of a full tree, root included."""
    return 1 + sum(int(np.prod(expansion[: depth + 1])) for depth in range(len(expansion)))


@st.composite
def trees(draw: st.DrawFn, vocab_size: int, max_nodes: int = 12) -> TokenTree:
    """Random trees; equal siblings are merged as they are when drafting."""
    builder = TreeBuilder(draw(st.integers(3, vocab_size - 1)))
    for _ in range(draw(st.integers(0, max_nodes - 1))):
        builder.add(draw(st.integers(0, len(builder) - 1)), draw(st.integers(3, vocab_size - 1)))
    return builder.build()
