"""Figures of what is accepted show the tables' values, one scenario per way of speculating, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from figures.drawing.style import FAINT, INK
from figures.reading.cells import Measured
from figures.reading.researcher_tables import AcceptanceRow, read_acceptance
from figures.researcher.acceptance_by_depth import rates_by_depth
from tests.figures.researcher_drawn import WAYS, draw, draw_from, lines, uprights
from tests.figures.researcher_files import (
    CHAIN,
    RATE,
    RECORD,
    everything,
    length_shares,
    offloading,
    sampling,
    scenario,
    server,
    tokens_per_step,
    tree_width,
    unmeasured,
    write_tables,
)

THREE = RATE * (1 + 0.25 + 0.0625)
"""Rate at a step with three proposals."""


def test_rates_by_depth_are_the_tables(tmp_path: Path) -> None:
    plot, _ = draw("acceptance_by_depth", tmp_path, server()).figure.axes
    (chain,), (tree,) = lines(plot, "o"), lines(plot, "s")
    assert list(chain.get_ydata()) == pytest.approx([RATE] * 8)
    assert list(tree.get_ydata()) == pytest.approx([RATE, RATE, THREE, *[RATE] * 5])
    assert np.round(tree.get_xdata()).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    ends = [(low, high) for _, low, high in uprights(plot)]
    assert ends[:8] == [pytest.approx((RATE * 0.9, RATE * 1.08))] * 8
    assert ends[10] == pytest.approx((THREE * 0.9, THREE * 1.08)), "three proposals: the sums of their ends"


def test_shares_of_rarer_ranks_count_by_how_often_they_were_offered(tmp_path: Path) -> None:
    known = read_acceptance(write_tables(tmp_path, server((1,))))[0].scenario
    first = AcceptanceRow(known, 1, 1, 100, 60, Measured(0.6, 0.5, 0.7))
    second = AcceptanceRow(known, 1, 2, 50, 10, Measured(0.2, 0.1, 0.3))
    never = AcceptanceRow(known, 2, 1, 0, 0, None)
    rates = rates_by_depth([second, never, first])
    assert [*rates] == [1]
    assert (rates[1].value, rates[1].low, rates[1].high) == pytest.approx((0.7, 0.55, 0.85))


def test_an_interval_stays_a_share(tmp_path: Path) -> None:
    known = read_acceptance(write_tables(tmp_path, server((1,))))[0].scenario
    rates = rates_by_depth([AcceptanceRow(known, 1, rank, 9, 4, Measured(0.45, 0.3, 0.6)) for rank in (1, 2)])
    assert (rates[1].low, rates[1].high) == pytest.approx((0.6, 1.0))


def test_a_depth_that_was_never_reached_is_a_gap(tmp_path: Path) -> None:
    rows = [*server((1,)), scenario("short", "short", "1.1.1", experiment="tree_width")]
    plot, _ = draw("acceptance_by_depth", tmp_path, rows).figure.axes
    shortest = min((list(line.get_ydata()) for line in plot.lines), key=lambda values: sum(np.isfinite(values)))
    assert shortest[:3] == pytest.approx([RATE] * 3) and np.isnan(shortest[3:]).all()


def test_lengths_are_the_tables(tmp_path: Path) -> None:
    drawn = draw("accepted_lengths", tmp_path, server())
    histogram, cumulative, _ = drawn.figure.axes
    own = {expansion: length_shares({"expansion": expansion}) for expansion in (CHAIN, "1.1.3.1.1.1.1.1")}
    heights = [bar.get_height() for bar in histogram.patches if isinstance(bar, Rectangle)]
    assert heights == pytest.approx([share for shares in own.values() for share in shares])
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in histogram.patches[:9]] == [*range(9)]
    for line, shares in zip(cumulative.lines, own.values(), strict=True):
        assert list(line.get_ydata())[:9] == pytest.approx(np.cumsum(shares).tolist())
        assert list(line.get_xdata())[:9] == [*range(9)]
        assert line.get_drawstyle() == "steps-post"
    assert "A step emits one token more: its own." in drawn.caption


def test_tree_sizes_and_tokens_are_the_tables(tmp_path: Path) -> None:
    rows = tree_width(("chatgpt",))
    greedy, _, stochastic, _ = draw("tree_size_acceptance", tmp_path, rows).figure.axes
    tokens = {row["scenario"]: tokens_per_step(row) for row in rows}
    third = [tokens[f"tree_width-chatgpt-greedy_width_{width}_third"] for width in (2, 3, 4, 5)]
    chain = tokens["tree_width-chatgpt-greedy_width_1"]
    for plot in (greedy, stochastic):
        (of_third,) = lines(plot, "s")
        assert sorted(zip(of_third.get_xdata(), of_third.get_ydata(), strict=True)) == [
            pytest.approx(point) for point in zip((14, 20, 26, 32), third, strict=True)
        ]
        curve = next(line for line in lines(plot, ".") if len(line.get_xdata()) == 5 and 14 in line.get_xdata())
        assert list(curve.get_xdata()) == [8, 14, 20, 26, 32]
        assert list(curve.get_ydata()) == pytest.approx([value * 1.05 for value in (chain, *third)])
    intervals = {nodes: (low, high) for nodes, low, high in uprights(greedy)}
    assert intervals[8] == pytest.approx((chain * 0.9, chain * 1.1))
    assert intervals[14] == pytest.approx((third[0] * 0.9, third[0] * 1.1))


def test_verifiers_of_the_same_trees_are_told_apart(tmp_path: Path) -> None:
    words = " ".join(draw("acceptance_by_depth", tmp_path, sampling()).words()).replace("\n", " ")
    assert "width 5 at step 3, mss" in words and "width 5 at step 3, sampler_match" in words
    assert "mss" not in " ".join(draw("acceptance_by_depth", tmp_path, sampling()[1:]).words())
    words = " ".join(draw("tree_size_acceptance", tmp_path, sampling()).words()).replace("\n", " ")
    assert "wide at step 3, mss" in words and "wide at step 3, sampler_match" in words


def test_verifiers_of_greedy_decoding_are_one_way(tmp_path: Path) -> None:
    rows = [*server((1,)), *server((2,), verifier="auto")]
    assert len(draw("acceptance_by_depth", tmp_path, rows).figure.axes[0].lines) == 2


@pytest.mark.parametrize("name", WAYS)
def test_one_scenario_stands_for_a_way_of_speculating(tmp_path: Path, name: str) -> None:
    """Of the artifact's prompt set, with the smallest batch size that has a record."""
    others = [row | {"scenario": row["scenario"] + "-piqa", "prompt_set": "piqa"} for row in server((1,))]
    rows = [
        *others,
        *unmeasured(server((1,)), "failed"),
        *server((4,), commit="4" * 16),
        *server((2,), commit="2" * 16),
    ]
    drawn = draw(name, tmp_path, rows)
    assert "commit 2222222222." in drawn.caption, "no other prompts, none that failed, no larger batch"
    assert "2 of 8 planned scenarios are drawn; not drawn: other prompt set, amount, batch size or placement (6)." in (
        drawn.caption
    )


@pytest.mark.parametrize("name", WAYS)
def test_missing_ways_are_named_with_their_reason_and_counted(tmp_path: Path, name: str) -> None:
    rows = server((1,))
    drawn = draw(name, tmp_path, [*rows[:2], *unmeasured(rows[2:], "superseded")])
    named = "wide at step 3: superseded" if name == "tree_size_acceptance" else "width 3 at step 3: superseded"
    assert named in " ".join(drawn.words()).replace("\n", " ")
    entries = drawn.figure.axes[-1].get_legend().get_texts()
    assert [to_hex(entry.get_color()) for entry in entries] == [INK, FAINT]
    assert "1 of 2 planned scenarios are drawn; not drawn: superseded (1)." in drawn.caption


@pytest.mark.parametrize("name", WAYS)
def test_a_record_without_steps_is_missing_too(tmp_path: Path, name: str) -> None:
    csv_dir = write_tables(tmp_path / "csv", server((1,)))
    table = {"tree_size_acceptance": "predictions"}.get(name, name).replace("_by_depth", "")
    path = csv_dir / f"{table}.csv"
    header, *lines_of_table = path.read_text().splitlines()
    blank = next(line for line in lines_of_table if "tree_specinfer" in line)
    values = {"acceptance": 7, "accepted_lengths": 4, "predictions": 7}[table]
    blank = blank.rsplit(",", values)[0] + "," * values
    kept = [line for line in lines_of_table if "tree_specinfer" not in line]
    path.write_text("\n".join([header, *kept, blank]) + "\n")
    assert "not measured (1)" in draw_from(name, csv_dir).caption


def test_no_more_ways_than_a_panel_can_show_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows = [*server((1,)), *tree_width(("chatgpt",))]
    drawn = draw("acceptance_by_depth", tmp_path, rows)
    greedy, _, stochastic, _ = drawn.figure.axes
    assert (len(greedy.lines), len(stochastic.lines)) == (6, 6)
    assert "too many for a panel (6)" in drawn.caption
    assert {"chain of 8", "width 3 at step 3", "width 5 at step 3"} <= set(drawn.words())
    histograms = draw("accepted_lengths", tmp_path, rows).figure.axes
    assert len(histograms[1].lines) == 4


@pytest.mark.parametrize(("name", "num_ways"), [("acceptance_by_depth", 6), ("accepted_lengths", 4)])
def test_ways_with_records_come_before_those_without(tmp_path: Path, name: str, num_ways: int) -> None:
    """The narrowest tree is the last to be drawn, unless nothing else has a record."""
    planned = unmeasured([row for row in tree_width(("chatgpt",)) if row["decoding"] == "stochastic"])
    rows = [
        row | RECORD | {"status": "ok"} if row["mode"].endswith(("width_2_first", "width_2_third")) else row
        for row in planned
    ]
    drawn = draw(name, tmp_path, rows)
    assert not any("no records yet" in word for word in drawn.words())
    assert f"2 of 9 planned scenarios are drawn; not drawn: missing ({num_ways - 2})" in drawn.caption
    inked = [text for text in drawn.figure.axes[-1].get_legend().get_texts() if to_hex(text.get_color()) == INK]
    assert {text.get_text() for text in inked} == {"width 2 at step 3", "width 2 at step 1"}


def test_kinds_of_trees_with_records_come_before_those_without(tmp_path: Path) -> None:
    """Seven kinds of trees, and the one that is measured, wide at the first step, is the last in their order."""
    steps = [["1"] * 8 for _ in range(7)]
    for place, widths in enumerate(steps):
        widths[place] = "2"
    rows = [scenario(f"wide-{place}", f"wide_{place}", ".".join(widths)) for place, widths in enumerate(steps, 1)]
    drawn = draw("tree_size_acceptance", tmp_path, [rows[0], *unmeasured(rows[1:])])
    plot, legend = drawn.figure.axes
    assert len(lines(plot, "o")) == 1, "with the first mark"
    inked = [text for text in legend.get_legend().get_texts() if to_hex(text.get_color()) == INK]
    assert [text.get_text() for text in inked] == ["wide at step 1"]


def test_panels_are_targets_and_decodings(tmp_path: Path) -> None:
    rows = everything()
    titles = [axes.get_title(loc="left") for axes in draw("acceptance_by_depth", tmp_path, rows).figure.axes]
    assert [title for title in titles if title] == [
        "small: llama-105M, greedy",
        "small: opt-105M, greedy",
        "small: llama-105M, stochastic",
    ]


def test_rounded_weights_are_drawn_where_there_are_no_others_and_say_so(tmp_path: Path) -> None:
    rows = [row for row in offloading((1,)) if row["quantisation"] != "int4" and row["offload"]]
    words = draw("acceptance_by_depth", tmp_path, rows[::-1]).words()
    assert "chain of 8" in words and not any("int8" in word for word in words)
    words = draw("acceptance_by_depth", tmp_path, [row for row in rows if row["quantisation"] == "int8"]).words()
    assert "chain of 8, int8" in words and "automatic tree, int8" in words
