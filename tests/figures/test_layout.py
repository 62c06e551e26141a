"""No text of any figure is cut or lies on another, whatever part of the data is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from figures.drawing.sheet import wrap
from tests.figures.drawn import cut_texts, draw, overlapping_texts
from tests.figures.table_files import (
    FIGURES,
    MODES,
    OFFLOADING_FIGURES,
    PEER,
    Row,
    every_placement,
    grid,
    measured_row,
    offloading_grid,
    planned_row,
    streamed,
    with_peer,
)

STATUSES = ("missing", "failed", "superseded", "incomplete")


def partial(size: str = "small") -> list[Row]:
    """Every reason for a gap, and records without baseline."""
    rows = []
    for number, batch_size in enumerate((1, 2, 4, 8, 16)):
        for place, mode in enumerate(MODES):
            if (number + place) % 2:
                rows.append(planned_row(mode, batch_size, size, STATUSES[(number + place) % 4]))
            else:
                without = {} if mode == "tree" else {"speedup": "", "speedup_ci_low": "", "speedup_ci_high": ""}
                rows.append(measured_row(mode, batch_size, size, **without))
    return rows


def partial_functional() -> list[Row]:
    """Sizes whose times are not drawn, some of them without a record."""
    return [row | {"purpose": "functional"} for size in ("medium", "large") for row in partial(size)]


LONG: dict[str, Any] = {
    "target_description": "embedded LLaMA target " + "of many words " * 30 + "x" * 200,
    "device": "NVIDIA A10G with a name that does not end " * 4,
    "draft": "y" * 150,
    "draft_description": "y" * 150,
}
CASES = {
    "nothing planned": [],
    "nothing measured": [planned_row(mode, batch_size) for batch_size in (1, 2) for mode in MODES],
    "all": grid(),
    "all sizes": [row for size in ("small", "medium", "large") for row in grid((1, 2, 4, 8, 16), size)],
    "some": partial(),
    "some of all sizes": [row for size in ("small", "medium", "large") for row in partial(size)],
    "all with a peer": with_peer([row for size in ("small", "medium") for row in grid((1, 2, 4, 8, 16), size)]),
    "some with a peer": [*with_peer(partial()), planned_row(PEER, 32, status="superseded")],
    "functional beside": [*grid(), *partial_functional()],
    "functional alone": partial_functional(),
    "one": [measured_row("incremental")],
    "long names": grid(**LONG),
    "slow speculation": grid(speedup=0.12, speedup_ci_low=0.1, speedup_ci_high=0.15),
    "large numbers": grid((1, 16, 64, 256), median_per_token_latency_ms=12345.6, ci_low_ms=1e4, ci_high_ms=2e4),
}


OFFLOADING_CASES = {
    "nothing planned": [],
    "nothing measured": streamed(CASES["nothing measured"]),
    "all placements": every_placement(offloading_grid((1, 2, 4, 8, 16))),
    "both sizes": [row for size in ("small", "large") for row in offloading_grid((1, 2, 4, 8, 16), size)],
    "some": every_placement(
        [*streamed(partial()), *streamed([planned_row("tree_auto", 2), measured_row("tree_auto")])]
    ),
    "long names": offloading_grid(**LONG),
    "slow speculation": offloading_grid(speedup=0.12, speedup_ci_low=0.1, speedup_ci_high=0.15),
}
EVERY = [(name, case, rows) for name in FIGURES if name not in OFFLOADING_FIGURES for case, rows in CASES.items()] + [
    (name, case, rows) for name in OFFLOADING_FIGURES for case, rows in OFFLOADING_CASES.items()
]


@pytest.mark.parametrize(("name", "case", "rows"), EVERY, ids=[f"{name}-{case}" for name, case, _ in EVERY])
def test_no_text_is_cut_or_covered(tmp_path: Path, name: str, case: str, rows: list[Row]) -> None:
    drawn = draw(name, tmp_path, rows)
    assert cut_texts(drawn) == []
    assert overlapping_texts(drawn) == []


def test_wrap_keeps_every_word_and_breaks_what_is_too_wide() -> None:
    text = "a few words " * 20 + "z" * 300
    lines = wrap(text, 3.0)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert len(lines) > 5
    assert wrap("", 3.0) == []
