"""Figures show what the tables hold, mark what is missing and say what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.patches import Rectangle

from tests.figures.drawn import draw
from tests.figures.table_files import (
    FIGURES,
    MODES,
    PEER,
    every_placement,
    grid,
    measured_row,
    offloading_grid,
    planned_row,
    streamed,
    with_peer,
)


def nothing_measured() -> list[dict[str, object]]:
    return [planned_row(mode, batch_size) for batch_size in (1, 2, 4, 8) for mode in MODES]


@pytest.mark.parametrize("name", FIGURES)
def test_without_records_the_axes_say_so(tmp_path: Path, name: str) -> None:
    drawn = draw(name, tmp_path, nothing_measured())
    num_shown = 4 if name == "tree_sizes" else 12
    assert f"no records yet (0/{num_shown})" in drawn.words()
    assert "missing (12)" in drawn.caption or "missing (8)" in drawn.caption or "missing (4)" in drawn.caption


def test_bars_and_speedups_are_the_tables(tmp_path: Path) -> None:
    drawn = draw("server_latency", tmp_path, grid((1, 2)))
    (panel,) = drawn.figure.axes
    bars = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
    assert sorted(bar.get_height() for bar in bars) == pytest.approx([1.0, 4 / 3, 2.0, 2.0, 8 / 3, 4.0])
    assert drawn.words().count("1.5×") == 2
    assert drawn.words().count("2.0×") == 2
    assert "12 of 12" not in drawn.caption and "6 of 6 planned scenarios are drawn." in drawn.caption


def test_a_peer_is_one_more_bar_and_said_to_be_a_third_party(tmp_path: Path) -> None:
    drawn = draw("server_latency", tmp_path, with_peer(grid((1, 2))))
    (panel,) = drawn.figure.axes
    assert sorted(bar.get_height() for bar in panel.patches)[-2:] == pytest.approx([4.0, 5.0])
    assert "transformers generate" in drawn.words()
    assert drawn.words().count("0.8×") == 2
    assert "8 of 8 planned scenarios are drawn." in drawn.caption
    assert "third party" in drawn.caption and "not interleaved" in drawn.caption and "static" in drawn.caption
    missing = draw("server_latency", tmp_path, [*grid((1,)), planned_row(PEER)])
    assert "missing" in missing.words()


def test_a_peer_stays_out_of_the_other_figures_and_of_captions_without_one(tmp_path: Path) -> None:
    assert "third party" not in draw("server_latency", tmp_path, grid()).caption
    for name in ("server_speedup", "time_split"):
        alone, beside = draw(name, tmp_path, grid()), draw(name, tmp_path, with_peer(grid()))
        assert [text.text for text in beside.texts] == [text.text for text in alone.texts]


def test_caption_names_models_machine_amount_and_commit(tmp_path: Path) -> None:
    for name in FIGURES:
        caption = draw(name, tmp_path, grid()).caption
        assert "Target: embedded LLaMA target, inflated to 105M parameters; draft: llama-draft." in caption
        assert (
            "Measured on Example CPU @ 2.0GHz; 2 threads; float32; 32 prompts × 3 repeats; commit 0123456789."
            in caption
        )


def test_caption_describes_a_draft_whose_weights_are_made_up(tmp_path: Path) -> None:
    rows = grid(draft_description="draft, 7.41M parameters, draft of the LLaMA-7B shape, synthetic weights")
    for name in FIGURES:
        caption = draw(name, tmp_path, rows).caption
        assert "to 105M parameters; draft: draft, 7.41M parameters, draft of the LLaMA-7B shape, synthetic" in caption


def test_parameters_are_added_where_the_description_lacks_them(tmp_path: Path) -> None:
    rows = grid(target_description="LLaMA-7B", target_num_parameters=6738415616)
    assert "Target: LLaMA-7B (6.74B parameters); draft" in draw("server_latency", tmp_path, rows).caption


def test_what_differs_is_said_to_differ(tmp_path: Path) -> None:
    rows = [*grid((1, 2)), *grid((4,), device="NVIDIA A10G", num_threads="", commit="fedcba9876543210-dirty")]
    caption = draw("server_latency", tmp_path, rows).caption
    assert "devices that differ: Example CPU @ 2.0GHz (6 scenarios), NVIDIA A10G (3 scenarios)" in caption
    assert "numbers of threads that differ: 2 threads (6 scenarios), unknown (3 scenarios)" in caption
    assert "commits that differ: 0123456789 (6 scenarios), fedcba9876-dirty (3 scenarios)" in caption


def test_models_of_several_sizes(tmp_path: Path) -> None:
    rows = [*grid((1,)), *grid((1,), "medium"), *grid((1,), "large", target_description="bigger", draft="other")]
    caption = draw("server_latency", tmp_path, rows).caption
    assert (
        "Target of small and medium: embedded LLaMA target, inflated to 105M parameters; draft: llama-draft." in caption
    )
    assert "Target of large: bigger (105M parameters); draft: other." in caption


def test_gaps_carry_their_reason(tmp_path: Path) -> None:
    rows = [
        measured_row("incremental"),
        planned_row("sequence", status="failed"),
        planned_row("tree", status="superseded"),
    ]
    drawn = draw("server_latency", tmp_path, rows)
    assert {"failed", "superseded"} <= set(drawn.words())
    assert "1 of 3 planned scenarios are drawn; not drawn: failed (1), superseded (1)." in drawn.caption
    drawn = draw("time_split", tmp_path, rows)
    assert {"failed", "superseded"} <= set(drawn.words())


def test_speedup_without_baseline_is_not_invented(tmp_path: Path) -> None:
    rows = [planned_row("incremental"), measured_row("tree", speedup="", speedup_ci_low="", speedup_ci_high="")]
    drawn = draw("server_latency", tmp_path, rows)
    assert "n/a" in drawn.words()
    assert "n/a: no incremental record of the same conditions to compare with." in drawn.caption
    drawn = draw("server_speedup", tmp_path, rows)
    assert "no speed-up yet: no mode has a record and a baseline" in drawn.words()
    assert "0 of 1 planned scenarios are drawn; not drawn: no baseline (1)." in drawn.caption


def test_published_range_is_labelled_and_only_where_it_exists(tmp_path: Path) -> None:
    drawn = draw("server_speedup", tmp_path, grid())
    assert "grey: published, 1 x A10, LLaMA-7B, 1.5-2.5×" in drawn.words()
    assert "not a result of this run" in drawn.caption
    drawn = draw("server_speedup", tmp_path, grid(), paper_dir=tmp_path / "no_paper")
    assert not any("published" in word for word in drawn.words())
    assert "SpecInfer" not in drawn.caption
    for name in ("server_latency", "time_split"):
        assert not any("published" in word for word in draw(name, tmp_path, grid()).words())


def test_speedup_line_has_a_gap_at_a_missing_point(tmp_path: Path) -> None:
    rows = [row for row in grid() if (row["mode"], row["batch_size"]) != ("tree", 2)]
    drawn = draw("server_speedup", tmp_path, [*rows, planned_row("tree", 2)])
    assert "tree: missing" in drawn.words()
    assert any("nan" in str(line.get_ydata()) for line in drawn.figure.axes[0].lines)


def test_shares_fill_the_bar(tmp_path: Path) -> None:
    drawn = draw("time_split", tmp_path, [measured_row("tree", 4)])
    (panel,) = drawn.figure.axes
    assert sum(bar.get_width() for bar in panel.patches if isinstance(bar, Rectangle)) == pytest.approx(1.0)
    assert {"tree, batch 4", "50%", "10%", "15%", "12.5 ms"} <= set(drawn.words())


def test_scenarios_with_further_settings_do_not_hide_the_experiments_own(tmp_path: Path) -> None:
    own = measured_row("tree")
    further = own | {"scenario": f"{own['scenario']}-width_5", "median_per_token_latency_ms": 99.0}
    (panel,) = draw("server_latency", tmp_path, [further, own]).figure.axes
    (bar,) = (patch for patch in panel.patches if isinstance(patch, Rectangle))
    assert bar.get_height() == own["median_per_token_latency_ms"]


def test_names_with_dollar_signs_are_names(tmp_path: Path) -> None:
    drawn = draw("server_latency", tmp_path, grid(target="a$b$c"))
    assert "small: a$b$c" in drawn.words()


FUNCTIONAL = (
    "{} functional scenarios of size medium and large left out: they show that it works, and their times are the"
)


@pytest.mark.parametrize("name", FIGURES)
def test_functional_scenarios_are_counted_and_never_drawn(tmp_path: Path, name: str) -> None:
    functional = [row for size in ("medium", "large") for row in grid((1,), size, purpose="functional")]
    alone, beside = draw(name, tmp_path, grid()), draw(name, tmp_path, [*grid(), *functional])
    assert beside.words() == alone.words()
    assert beside.caption.startswith(alone.caption)
    told = FUNCTIONAL.format(2 if name == "tree_sizes" else 6)
    assert told in beside.caption and "functional" not in alone.caption


@pytest.mark.parametrize("name", FIGURES)
def test_a_platform_that_times_nothing_says_so(tmp_path: Path, name: str) -> None:
    drawn = draw(name, tmp_path, grid((1, 4), purpose="functional"))
    assert "nothing is planned to be timed" in drawn.words()
    assert f"{2 if name == 'tree_sizes' else 6} functional scenarios of size small left out" in drawn.caption
    assert not any(panel.patches for panel in drawn.figure.axes)


def test_each_placement_has_a_panel_that_says_how_its_weights_are_kept(tmp_path: Path) -> None:
    for name in ("offloading_latency", "offloading_speedup"):
        drawn = draw(name, tmp_path, every_placement(offloading_grid()))
        titles = [panel.get_title(loc="left") for panel in drawn.figure.axes]
        assert titles == [
            "small: opt-103M, streamed from disk",
            "small: opt-103M, streamed from disk, int8",
            "small: opt-103M, streamed from disk, int4",
            "small: opt-103M, resident",
        ]
        assert "tree of automatic size" in drawn.words()


def test_the_automatic_tree_is_a_mode_beside_the_published_one(tmp_path: Path) -> None:
    (panel,) = draw("offloading_latency", tmp_path, offloading_grid((1,))).figure.axes
    heights = sorted(patch.get_height() for patch in panel.patches)
    assert heights == pytest.approx([0.5, 1.0, 4 / 3, 2.0])
    (panel,) = draw("offloading_speedup", tmp_path, offloading_grid((1,)), tmp_path / "no_paper").figure.axes
    drawn = [line.get_ydata()[0] for line in panel.lines if line.get_marker() in ("s", "o", "D")]
    assert sorted(drawn) == [1.5, 2.0, 4.0]


def test_published_offloading_is_over_flexgen_and_beside_its_own_placement_only(tmp_path: Path) -> None:
    rows = every_placement(offloading_grid((1, 4, 64)))
    drawn = draw("offloading_speedup", tmp_path, rows)
    titles = [panel.get_title(loc="right") for panel in drawn.figure.axes]
    assert titles == ["grey: published over FlexGen, 1 x A10, OPT-13B, 2.6-3.3×", "", "", ""]
    assert [word for word in drawn.words() if word in ("3.3×", "3.1×")] == ["3.3×", "3.1×"], "batch sizes 1 and 4"
    assert "over FlexGen, which is another baseline" in drawn.caption and "not a result of this run" in drawn.caption
    for unlabelled in (
        draw("offloading_speedup", tmp_path, rows, paper_dir=tmp_path / "no_paper"),
        draw("offloading_latency", tmp_path, rows),
        draw("server_speedup", tmp_path, grid()),
    ):
        assert "FlexGen" not in " ".join([*unlabelled.words(), unlabelled.caption])


def test_tree_sizes_are_those_of_the_table(tmp_path: Path) -> None:
    rows = every_placement(offloading_grid((1, 8)))
    for row in rows:
        if row["mode"] == "tree_auto" and not row["offload"]:
            row["draft_tokens_per_step"] = 7.0
    drawn = draw("tree_sizes", tmp_path, rows)
    automatic = [list(line.get_ydata()) for line in drawn.figure.axes[0].lines if line.get_marker() != "_"]
    assert automatic == [[120.0, 120.0]] * 3 + [[7.0, 7.0]]
    assert {"from disk", "from disk, int8", "from disk, int4", "resident", "published tree"} <= set(drawn.words())


def test_a_missing_tree_is_a_gap_with_its_reason(tmp_path: Path) -> None:
    rows = [row for row in offloading_grid((1, 4)) if (row["mode"], row["batch_size"]) != ("tree_auto", 4)]
    drawn = draw("tree_sizes", tmp_path, [*rows, *streamed([planned_row("tree_auto", 4, status="failed")])])
    assert "streamed from disk: failed" in drawn.words()
    assert any("nan" in str(line.get_ydata()) for line in drawn.figure.axes[0].lines)
    assert "3 of 4 planned scenarios are drawn; not drawn: failed (1)." in drawn.caption


def fitting(rows: list[dict[str, object]], quantisation: str) -> list[dict[str, object]]:
    """The rows, with records that tell how much is streamed: nothing where weights are rounded so."""
    return [
        row | {"streamed_bytes": "" if row["status"] != "ok" else 0 if row["quantisation"] == quantisation else 9e6}
        for row in ({"quantisation": ""} | row for row in rows)
    ]


@pytest.mark.parametrize("name", ["offloading_latency", "offloading_speedup"])
def test_weights_that_fit_are_not_called_streamed(tmp_path: Path, name: str) -> None:
    rows = [*offloading_grid(), *streamed([planned_row("tree_auto", 16)])]
    drawn = draw(name, tmp_path, fitting(every_placement(rows), "int4"))
    titles = [panel.get_title(loc="left") for panel in drawn.figure.axes]
    assert titles == [
        "small: opt-103M, streamed from disk",
        "small: opt-103M, streamed from disk, int8",
        "small: opt-103M, fits without streaming, int4",
        "small: opt-103M, resident",
    ]


def test_trees_of_weights_that_fit_are_named_so(tmp_path: Path) -> None:
    rows = [row for row in every_placement(offloading_grid()) if row["offload"]]
    drawn = draw("tree_sizes", tmp_path, fitting(rows, "int8"))
    assert {"from disk", "fits, int8", "from disk, int4"} <= set(drawn.words())


def test_what_is_published_of_streamed_weights_is_not_beside_weights_that_fit(tmp_path: Path) -> None:
    drawn = draw("offloading_speedup", tmp_path, fitting(offloading_grid(), ""))
    assert not any("published" in word for word in drawn.words())


def test_a_published_value_has_its_label_beside_it(tmp_path: Path) -> None:
    for batch_sizes in ((1,), (1, 4, 8)):
        drawn = draw("offloading_speedup", tmp_path, offloading_grid(batch_sizes))
        (panel,) = drawn.figure.axes
        label = next(text for text in panel.texts if text.get_text() == "3.3×")
        box, mark = label.get_window_extent(), panel.transData.transform((0, 3.3))
        assert (box.y0 + box.y1) / 2 == pytest.approx(mark[1], abs=3)
        assert 0 < mark[0] - box.x1 < 30


def test_a_mode_with_a_name_of_its_own_is_no_error(tmp_path: Path) -> None:
    own = measured_row("tree") | {"mode": "my_mode", "scenario": "server_small-1_batchsize-my_mode"}
    drawn = draw("time_split", tmp_path, [*grid((1,)), own])
    labels = [text.get_text() for text in drawn.figure.axes[0].get_yticklabels()]
    assert labels == ["incremental, batch 1", "sequence, batch 1", "tree, batch 1", "my_mode, batch 1"]
