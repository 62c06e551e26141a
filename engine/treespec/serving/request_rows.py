"""A request's part in a target pass: from tokens and a laid-out tree to rows in leased slots.

Legend: c certain tokens before the tree, n tokens of one row, M speculative slots up to its end.
"""

from __future__ import annotations

import numpy as np

from treespec.kvcache.allocator import Lease, SlotAllocator
from treespec.request import Request
from treespec.runner import ForwardRow
from treespec.tree.layout import LaidTree

NO_NODES = np.empty(0, dtype=np.int64)


def request_rows(
    request: Request, num_certain: int, laid: LaidTree | None, allocator: SlotAllocator, region: int
) -> list[ForwardRow]:
    """Prompt tokens as a chain and the tree below its end: a chunk of a prompt is a tree known to be right.

    The certain tokens stand in the first row, and all rows see them. The slots of all rows follow one another, so
    that token t of the tree's rows lies at slot c + t from the context's end.
    """
    rows: list[ForwardRow] = []
    lease: Lease | None = None
    for nodes in [NO_NODES] if laid is None else laid.rows:
        own_certain = 0 if rows else num_certain
        lease = allocator.lease(region, own_certain + len(nodes), parent=lease)
        rows.append(_row(request, num_certain, own_certain, laid, nodes, lease))
    return rows


def _row(
    request: Request, num_certain: int, own_certain: int, laid: LaidTree | None, nodes: np.ndarray, lease: Lease
) -> ForwardRow:
    visible = np.zeros((lease.num_slots, lease.start + lease.num_slots), dtype=bool)
    visible[:, :num_certain] = True
    visible[:own_certain, :own_certain] = np.tri(own_certain, dtype=bool)
    ids = np.asarray(request.tokens_from(request.num_cached)[:own_certain], dtype=np.int64)
    positions = np.arange(request.num_cached, request.num_cached + own_certain, dtype=np.int64)
    if laid is not None:
        tree = laid.tree
        visible[own_certain:, lease.start + own_certain :] = tree.ancestors[np.ix_(nodes, nodes)]
        ids = np.concatenate([ids, tree.token_ids[nodes]])
        positions = np.concatenate([positions, request.num_cached + num_certain + tree.depths[nodes]])
    return ForwardRow(lease, ids, positions, visible, num_logits=len(nodes))
