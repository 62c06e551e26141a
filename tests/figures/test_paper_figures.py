"""Figures 9 to 11 and tables 1 to 3 of the paper show what the tables hold, with published numbers told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from figures.drawing.style import PUBLISHED_FILL, PUBLISHED_MARK, WIDTH_MARKS
from figures.paper.tokens_per_step_cdf import prompt_means
from figures.reading.tables import RequestRow
from tests.figures.drawn import Drawn, draw_paper
from tests.figures.paper_tables import (
    BATCH_SIZES,
    NUM_PROMPTS,
    PROMPT_SETS,
    all_tables,
    emptied,
    latency_rows,
    layout_rows,
    rank_rows,
    sampling_rows,
    steps_cells,
    tokens_per_step,
    width_rows,
    without_record,
)
from tests.figures.table_files import Row

FIGURES = {
    "tokens_per_step_cdf": 18,
    "width_latency": 25,
    "parallel_decoding": 10,
    "rank_success": 10,
    "tokens_per_step": 90,
    "sampling_algorithms": 20,
}
"""Figure -> planned scenarios in ``all_tables``."""
TIMED_ONLY = "nothing is planned to be timed"
SIZES: dict[str, Row] = {"": {}, "_large": {"purpose": "functional", "size": "large"}}
PLACES = (
    "<1,1,k,1,1,1,1,1>: branching at the third step, as the paper states. "
    "<k,1,1,1,1,1,1,1>: branching at the first step, as the artifact's code runs."
)


def lines(panel: Axes, marker: str) -> list[list[float]]:
    """The heights of every line with a marker; a single dash is the cap of a whisker."""
    found = [list(line.get_ydata()) for line in panel.lines if line.get_marker() == marker]
    return [heights for heights in found if marker != "_" or len(heights) > 1]


def bars(panel: Axes, colour: str) -> list[float]:
    """The heights of the bars of a colour, left to right."""
    found = sorted((bar for bar in panel.patches if isinstance(bar, Rectangle)), key=lambda bar: bar.get_x())
    return [bar.get_height() for bar in found if bar.get_facecolor() == to_rgba(colour)]


def titles(drawn: Drawn) -> list[str]:
    return [panel.get_title(loc="left") for panel in drawn.figure.axes]


def one_missing(rows: list[Row], mode: str, status: str = "failed") -> list[Row]:
    """The rows with the first one of a mode not there."""
    first = next(row for row in rows if row["mode"] == mode)
    return [without_record(row, status) if row is first else row for row in rows]


@pytest.mark.parametrize(("name", "num_planned"), FIGURES.items())
def test_without_records_the_axes_say_so(tmp_path: Path, name: str, num_planned: int) -> None:
    drawn = draw_paper(name, tmp_path, emptied(all_tables()))
    said = [word for word in drawn.words() if word.startswith("no records yet")]
    assert len(said) == len(drawn.figure.axes)
    assert f"0 of {num_planned} planned scenarios are drawn; not drawn: missing ({num_planned})." in drawn.caption
    assert not any(panel.patches for panel in drawn.figure.axes)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_planned_is_an_empty_panel_that_says_so(tmp_path: Path, name: str) -> None:
    drawn = draw_paper(name, tmp_path, {})
    assert [word for word in drawn.words() if word == TIMED_ONLY] == [TIMED_ONLY]
    assert "0 of 0 planned scenarios are drawn." in drawn.caption


@pytest.mark.parametrize(("name", "num_planned"), FIGURES.items())
def test_functional_scenarios_are_counted_and_never_drawn(tmp_path: Path, name: str, num_planned: int) -> None:
    measured = all_tables()
    both = {
        table: [
            row | changes | {"scenario": row["scenario"] + number} for number, changes in SIZES.items() for row in rows
        ]
        for table, rows in measured.items()
    }
    alone, beside = draw_paper(name, tmp_path, measured), draw_paper(name, tmp_path, both)
    assert beside.words() == alone.words()
    assert f"{num_planned} functional scenarios of size large left out" in beside.caption
    assert f"{num_planned} of {num_planned} planned scenarios are drawn." in beside.caption


@pytest.mark.parametrize("name", FIGURES)
def test_caption_says_models_machine_and_trees(tmp_path: Path, name: str) -> None:
    caption = draw_paper(name, tmp_path, all_tables()).caption
    assert "Target: embedded LLaMA target, inflated to 105M parameters; draft: llama-draft." in caption
    assert "Measured on Example CPU @ 2.0GHz; 2 threads; float32; 32 prompts × 3 repeats; commit 0123456789." in caption
    assert "Trees: <" in caption


@pytest.mark.parametrize("name", ["rank_success", "tokens_per_step", "sampling_algorithms"])
def test_published_numbers_are_said_to_be_of_others_and_need_their_file(tmp_path: Path, name: str) -> None:
    drawn = draw_paper(name, tmp_path, all_tables())
    assert "published" in drawn.words()
    assert "LLaMA-7B with LLaMA-68M on other hardware: not a result of this run" in drawn.caption
    for without in (
        draw_paper(name, tmp_path, all_tables(), paper_dir=tmp_path / "no_paper"),
        draw_paper(name, tmp_path, emptied(all_tables())),
    ):
        assert "not a result of this run" not in without.caption
        assert not any(lines(panel, PUBLISHED_MARK.marker) for panel in without.figure.axes)
        assert not any(bars(panel, PUBLISHED_FILL) for panel in without.figure.axes)


def test_tokens_per_step_by_width_and_place_beside_published(tmp_path: Path) -> None:
    drawn = draw_paper("tokens_per_step", tmp_path, {"tree_width": width_rows()})
    assert titles(drawn) == ["small: llama-105M, greedy", "small: llama-105M, stochastic"]
    assert {"branching at step 3 (paper)", "branching at step 1 (artifact's code)"} <= set(drawn.words())
    assert PLACES in drawn.caption
    for panel, decoding in zip(drawn.figure.axes, ("greedy", "stochastic"), strict=True):
        for marker, step in (("o", 3), ("s", 1)):
            expected = [tokens_per_step(decoding, width, step) for width in (1, 2, 3, 4, 5)]
            assert lines(panel, marker) == [pytest.approx(expected)] * 5
    published = lines(drawn.figure.axes[0], "_")
    assert published[0] == [2.73, 3.4, 3.62, 3.79, 3.91], "greedy, CIP, which is chatbot"
    assert published[3] == [2.95, 3.07, 3.21, 3.33, 3.43], "greedy, Alpaca"


def test_a_missing_width_is_a_gap_and_counted_in_its_prompt_set(tmp_path: Path) -> None:
    rows = one_missing(width_rows(), "greedy_width_3_first")
    drawn = draw_paper("tokens_per_step", tmp_path, {"tree_width": rows})
    assert drawn.words().count("1 failed") == 1
    assert "nan" in str(lines(drawn.figure.axes[0], "s")[0]) and "nan" not in str(lines(drawn.figure.axes[0], "o")[0])
    assert "89 of 90 planned scenarios are drawn; not drawn: failed (1)." in drawn.caption


def test_a_prompt_set_that_the_paper_does_not_have_stands_last_and_has_nothing_published(tmp_path: Path) -> None:
    tables = {
        "tree_width": width_rows(("my_own", "piqa")),
        "sampling": sampling_rows(("my_own", "piqa")),
        "rank_success": rank_rows(("", "piqa")),
    }
    for name in ("tokens_per_step", "rank_success"):
        drawn = draw_paper(name, tmp_path, tables)
        own = "my_own" if name == "tokens_per_step" else "unknown prompts"
        places = {text.get_text(): text.get_position()[0] for text in drawn.figure.axes[0].texts}
        assert places["piqa (PIQA)"] < places[own]
        assert len(lines(drawn.figure.axes[0], "o")) == 2 and len(lines(drawn.figure.axes[0], "_")) == 1
    drawn = draw_paper("sampling_algorithms", tmp_path, tables)
    assert bars(drawn.figure.axes[0], PUBLISHED_FILL) == [1.73, 2.21]


def test_chains_alone_are_a_point_per_prompt_set(tmp_path: Path) -> None:
    chains = [row for row in width_rows() if row["tree_width"] == 1]
    drawn = draw_paper("tokens_per_step", tmp_path, {"tree_width": chains})
    assert lines(drawn.figure.axes[0], "o") == [[2.6]] * 5 and "chain" in drawn.words()


def test_cdf_is_over_the_prompts_of_alpaca(tmp_path: Path) -> None:
    drawn = draw_paper("tokens_per_step_cdf", tmp_path, {"tree_width": width_rows()})
    assert titles(drawn) == [
        "small, greedy, branching at the third step",
        "small, greedy, branching at the first step",
        "small, stochastic, branching at the third step",
        "small, stochastic, branching at the first step",
    ]
    assert PLACES in drawn.caption
    panel = drawn.figure.axes[1]
    for width, mark in zip((1, 2, 3, 4, 5), WIDTH_MARKS, strict=True):
        (line,) = (line for line in panel.lines if line.get_marker() == mark.marker)
        mean = tokens_per_step("greedy", width, 1)
        heights = [mean * (0.7 + 0.6 * prompt / (NUM_PROMPTS - 1)) for prompt in range(NUM_PROMPTS)]
        assert list(line.get_ydata()) == pytest.approx([*heights, heights[-1]])
        assert list(line.get_xdata()) == pytest.approx([prompt / NUM_PROMPTS for prompt in range(NUM_PROMPTS + 1)])


def test_cdf_names_missing_widths_and_other_prompt_sets_are_not_its_own(tmp_path: Path) -> None:
    rows = one_missing(width_rows(("alpaca",)), "greedy_width_2_third")
    drawn = draw_paper("tokens_per_step_cdf", tmp_path, {"tree_width": rows})
    assert drawn.words().count("width 2: failed") == 1
    assert "17 of 18 planned scenarios are drawn; not drawn: failed (1)." in drawn.caption
    drawn = draw_paper("tokens_per_step_cdf", tmp_path, {"tree_width": width_rows(("piqa",))})
    assert TIMED_ONLY in drawn.words()


def test_mean_of_a_prompt_is_over_all_its_steps() -> None:
    rows = [
        RequestRow("a", prompt_index=0, num_decoding_steps=10, tokens_per_step=2.0),
        RequestRow("a", prompt_index=0, num_decoding_steps=30, tokens_per_step=4.0),
        RequestRow("a", prompt_index=1, num_decoding_steps=5, tokens_per_step=1.0),
        RequestRow("a", prompt_index=2, num_decoding_steps=0, tokens_per_step=None),
    ]
    assert prompt_means(rows) == {"a": [1.0, 3.5]}


def test_latency_by_width_and_which_is_lowest(tmp_path: Path) -> None:
    rows = latency_rows()
    drawn = draw_paper("width_latency", tmp_path, {"tree_width_latency": rows})
    (panel,) = drawn.figure.axes
    for width, mark in zip((1, 2, 3, 4, 5), WIDTH_MARKS, strict=True):
        expected = [row["median_per_token_latency_ms"] for row in rows if row["tree_width"] == width]
        assert lines(panel, mark.marker) == [pytest.approx(expected)]
    lowest = sorted((text.get_position()[0], text.get_text()) for text in panel.texts)
    assert [text for _, text in lowest if text] == ["width 5", "width 5", "width 1", "width 1", "width 1"]
    assert "<1,1,k,1,1,1,1,1>: branching at the third step, as the paper states." in drawn.caption
    assert "artifact" not in drawn.caption and "it gives no numbers" in drawn.caption


def test_a_missing_width_is_named_at_its_batch_size(tmp_path: Path) -> None:
    rows = one_missing(latency_rows(), "width_5", "superseded")
    drawn = draw_paper("width_latency", tmp_path, {"tree_width_latency": rows})
    assert drawn.words().count("width 5: superseded") == 1
    # Twice: the second batch size, where it is the lowest, and the legend; at the first it is width 4.
    assert (drawn.words().count("width 5"), drawn.words().count("width 4")) == (2, 2)


def test_layouts_with_the_ratio_of_their_medians(tmp_path: Path) -> None:
    rows = layout_rows()
    drawn = draw_paper("parallel_decoding", tmp_path, {"parallel_decoding": rows})
    (panel,) = drawn.figure.axes
    for colour, layout in (("#0072b2", "tree"), ("#e69f00", "sequences")):
        expected = [row["median_per_token_latency_ms"] for row in rows if row["tree_layout"] == layout]
        assert bars(panel, colour) == pytest.approx(expected)
    assert [text.get_text() for text in panel.texts] == ["1.00×", "1.05×", "1.15×", "1.35×", "1.75×"]
    assert "<1,1,3,1,1,1,1,1>: branching at the third step" in drawn.caption
    assert "up to 1.8× faster at large ones" in drawn.caption


def test_a_missing_layout_has_its_reason_and_no_ratio(tmp_path: Path) -> None:
    rows = one_missing(layout_rows(), "sequence_based", "incomplete")
    (panel,) = draw_paper("parallel_decoding", tmp_path, {"parallel_decoding": rows}).figure.axes
    assert [text.get_text() for text in panel.texts] == ["incomplete", "1.05×", "1.15×", "1.35×", "1.75×"]
    assert len(bars(panel, "#e69f00")) == len(BATCH_SIZES) - 1


def test_success_rates_by_rank_beside_published(tmp_path: Path) -> None:
    drawn = draw_paper("rank_success", tmp_path, {"rank_success": rank_rows()})
    assert titles(drawn) == ["small: llama-105M, greedy", "small: llama-105M, stochastic"]
    assert "Trees: <5,5,5>." in drawn.caption
    for panel in drawn.figure.axes:
        assert lines(panel, "o") == [pytest.approx([0.6, 0.8, 1 - 0.4 / 3, 0.9, 0.92])] * len(PROMPT_SETS)
    assert lines(drawn.figure.axes[1], "_")[0] == pytest.approx([0.57, 0.84, 0.92, 0.95, 0.97]), "stochastic, CIP"


def test_a_scenario_without_rates_is_named_in_its_prompt_set(tmp_path: Path) -> None:
    drawn = draw_paper("rank_success", tmp_path, {"rank_success": one_missing(rank_rows(), "stochastic", "missing")})
    assert drawn.words().count("1 missing") == 1
    assert set(map(str, lines(drawn.figure.axes[1], "o")[0])) == {"nan"}
    assert "9 of 10 planned scenarios are drawn; not drawn: missing (1)." in drawn.caption


def test_sampling_algorithms_beside_published(tmp_path: Path) -> None:
    drawn = draw_paper("sampling_algorithms", tmp_path, {"sampling": sampling_rows()})
    assert titles(drawn) == [
        "small: llama-105M, branching at the third step",
        "small: llama-105M, branching at the first step",
    ]
    for panel in drawn.figure.axes:
        assert bars(panel, "#e69f00") == [2.0] * 5 and bars(panel, "#0072b2") == [2.5] * 5
        published = [1.79, 2.29, 1.8, 2.28, 1.73, 2.21, 1.87, 2.38, 1.73, 2.21]
        assert bars(panel, PUBLISHED_FILL) == published
        labels = [text.get_text() for text in panel.texts]
        assert labels == ["1.25×", "1.28×", "1.25×", "1.27×", "1.25×", "1.28×", "1.25×", "1.27×", "1.25×", "1.28×"]


def test_a_missing_algorithm_has_its_reason_and_no_ratio(tmp_path: Path) -> None:
    rows = one_missing(sampling_rows(("alpaca",)), "multi_step_third")
    drawn = draw_paper("sampling_algorithms", tmp_path, {"sampling": rows})
    assert [text.get_text() for text in drawn.figure.axes[0].texts] == ["failed", "1.27×"]
    assert bars(drawn.figure.axes[0], "#e69f00") == [2.0]


def test_further_settings_do_not_hide_the_experiments_own(tmp_path: Path) -> None:
    rows = sampling_rows(("alpaca",))
    further = [row | steps_cells(9.0) | {"scenario": row["scenario"] + "-max_new_tokens_8"} for row in rows]
    drawn = draw_paper("sampling_algorithms", tmp_path, {"sampling": [*further, *rows]})
    assert bars(drawn.figure.axes[0], "#0072b2") == [2.5]
    assert "4 of 4 planned scenarios are drawn." in drawn.caption


def test_a_record_without_the_measure_is_said_to_lack_it(tmp_path: Path) -> None:
    first, *others = layout_rows()
    blank = first | {"median_per_token_latency_ms": ""}
    drawn = draw_paper("parallel_decoding", tmp_path, {"parallel_decoding": [blank, *others]})
    assert "not measured" in drawn.words()
    assert "9 of 10 planned scenarios are drawn; not drawn: not measured (1)." in drawn.caption
