"""No text of the paper's figures is cut or lies on another, whatever part of the data is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.figures.drawn import cut_texts, draw_paper, overlapping_texts
from tests.figures.paper_tables import (
    Tables,
    all_tables,
    emptied,
    latency_rows,
    layout_rows,
    rank_rows,
    sampling_rows,
    thinned,
    width_rows,
)

FIGURES = (
    *("tokens_per_step_cdf", "width_latency", "parallel_decoding"),
    *("rank_success", "tokens_per_step", "sampling_algorithms"),
)


def of_every_size(tables: Tables) -> Tables:
    """The rows, once per size."""
    sizes = ("small", "medium", "large")
    return {
        name: [row | {"size": size, "scenario": f"{row['scenario']}_{size}"} for size in sizes for row in rows]
        for name, rows in tables.items()
    }


def of_sets(*names: str) -> Tables:
    """The experiments that have prompt sets, with these."""
    return {"tree_width": width_rows(names), "rank_success": rank_rows(names), "sampling": sampling_rows(names)}


def with_long_names() -> Tables:
    """Models, devices and a prompt set with names that do not fit a line."""
    models = {"target_description": "of many words " * 30 + "x" * 200, "draft_description": "y" * 150}
    long = models | {"device": "NVIDIA " * 30, "draft": "y" * 150}
    tables = all_tables() | of_sets("alpaca", "piqa", "webqa", "chatgpt", "a_prompt_set_with_a_name_that_does_not_end")
    return {name: [row | long for row in rows] for name, rows in tables.items()}


CASES = {
    "nothing planned": {},
    "nothing measured": emptied(all_tables()),
    "all": all_tables(),
    "some": thinned(all_tables()),
    "some of all sizes": of_every_size(thinned(all_tables())),
    "one prompt set": of_sets("alpaca"),
    "eight prompt sets": of_sets("alpaca", "piqa", "webqa", "chatgpt", "chatbot", "one_more", "another", "the_last"),
    "large numbers": {
        name: [row | {"median_per_token_latency_ms": 12345.6, "ci_low_ms": 1e4, "ci_high_ms": 2e4} for row in rows]
        for name, rows in {"tree_width_latency": latency_rows(), "parallel_decoding": layout_rows()}.items()
    },
    "long names": with_long_names(),
}
RELEVANT = {
    "large numbers": ("width_latency", "parallel_decoding"),
    "one prompt set": ("tokens_per_step_cdf", "rank_success", "tokens_per_step", "sampling_algorithms"),
    "eight prompt sets": ("rank_success", "tokens_per_step", "sampling_algorithms"),
}
SLOW = ("all", "some of all sizes", "long names")
EVERY = [
    pytest.param(name, case, id=f"{name}-{case}", marks=[pytest.mark.slow] if case in SLOW else [])
    for case in CASES
    for name in RELEVANT.get(case, FIGURES)
]


@pytest.mark.parametrize(("name", "case"), EVERY)
def test_no_text_is_cut_or_covered(tmp_path: Path, name: str, case: str) -> None:
    drawn = draw_paper(name, tmp_path, CASES[case])
    assert cut_texts(drawn) == []
    assert overlapping_texts(drawn) == []
