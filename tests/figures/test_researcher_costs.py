"""Figures of costs and predictions show the tables' values, and the break-even map is the formula of its caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from figures.reading.researcher_tables import CostCurve, read_cost_curves, read_predictions
from figures.researcher.break_even import LARGEST_BATCH, MAX_PANELS
from figures.selecting.costs import CHAIN, PUBLISHED_TREE, Costs, TreeShape, planned_costs, time_at
from tests.figures.researcher_drawn import RESEARCHERS, draw, draw_from, lines, uprights
from tests.figures.researcher_files import (
    CHAIN as CHAIN_NAME,
)
from tests.figures.researcher_files import (
    IDENTITY,
    PREDICTIONS,
    Row,
    cost_rows,
    offloading,
    prediction_row,
    scenario,
    server,
    tokens_per_step,
    tree_width,
    unmeasured,
    write,
    write_tables,
)

RESIDENT = ("llama-105M", "opt-105M")
ROUNDED = "opt-105M, offload disk, "
POWERS = [2**power for power in range(10)]


def costs_of(tmp_path: Path, slope: float = 0.1, last: int = 512) -> Costs:
    """Costs of t(n) = 20 (1 + slope (n - 1)) ms and a tenth of it for a level of the draft."""
    rows = server((1,))
    csv_dir = write_tables(tmp_path, rows, cost_rows(rows[1], slope=slope, last=last))
    scenarios = [row.scenario for row in read_predictions(csv_dir)]
    (costs,) = planned_costs(read_cost_curves(csv_dir), scenarios).costs.values()
    return costs


def rewrite_predictions(csv_dir: Path, rows: list[Row]) -> None:
    """Put other rows in the table of predictions."""
    write(csv_dir / "predictions.csv", [*IDENTITY, *PREDICTIONS], rows)


def test_cost_curves_are_the_tables(tmp_path: Path) -> None:
    rows = offloading((1,))
    costs = [*cost_rows(rows[1], "streamed", 0.05, 64), *cost_rows(rows[-1], "resident", 0.2)]
    target, draft_level, _ = draw("verify_cost", tmp_path, rows, costs).figure.axes
    for plot in (target, draft_level):
        drawn = {tuple(line.get_xdata()): list(line.get_ydata()) for line in plot.lines if len(line.get_xdata()) > 2}
        assert drawn == {
            tuple(POWERS[:7]): pytest.approx([1 + 0.05 * (n - 1) for n in POWERS[:7]]),
            tuple(POWERS): pytest.approx([1 + 0.2 * (n - 1) for n in POWERS]),
        }
        references = [line.get_xydata().tolist() for line in plot.lines if line.get_linestyle() == "--"]
        assert [[1, 1], [512, 1]] in references and [[1, 1], [512, 512]] in references
        assert plot.get_xscale() == "log"


def test_weights_without_costs_are_named_and_doubled_curves_counted(tmp_path: Path) -> None:
    rows = offloading((1,))
    costs = [*cost_rows(rows[-1], "first", 0.2), *cost_rows(rows[-1], "second", 0.7)]
    drawn = draw("verify_cost", tmp_path, rows, costs)
    words = " ".join(drawn.words()).replace("\n", " ")
    assert "small: opt-105M t(1) = 20 ms" in words
    assert "small: opt-105M, offload disk, int8: no costs" in words
    assert "1 of 4 planned kinds of weights are drawn; 2 further curves, of other placements, are in" in drawn.caption
    assert max(max(line.get_ydata()) for line in drawn.figure.axes[0].lines if len(line.get_xdata()) > 2) == (
        pytest.approx(1 + 0.2 * 511)
    )


@pytest.mark.parametrize("name", ["verify_cost", "break_even"])
def test_what_a_target_is_stands_in_the_caption(tmp_path: Path, name: str) -> None:
    """A legend and a panel have its name only, which an inflated model shares with the one that it was made from."""
    caption = draw(name, tmp_path, server((1,))).caption
    assert "Target: embedded LLaMA target, inflated to 105M parameters." in caption
    others = [row | {"target_description": f"another, {row['quantisation'] or 'resident'}"} for row in offloading((1,))]
    assert "Targets: another, resident; another, int8; another, int4." in draw(name, tmp_path, others).caption
    assert "Target" not in draw(name, tmp_path, unmeasured(server((1,)))).caption


def test_predicted_and_measured_are_the_tables(tmp_path: Path) -> None:
    rows = server((1, 2))
    (plot,) = draw("predicted_speedup", tmp_path, rows).figure.axes
    measured = [1.0, 1.2, 1.4, 1.6]
    drawn = [line.get_xydata()[0].tolist() for line in lines(plot, "s") + lines(plot, "o")]
    assert sorted(drawn) == [pytest.approx([value * 1.2, value]) for value in measured]
    assert sorted(uprights(plot)) == [pytest.approx((v * 1.2, v * 0.9, v * 1.1)) for v in measured]
    end = plot.get_xlim()[1]
    assert plot.get_xlim() == plot.get_ylim()
    assert any(line.get_xydata().tolist() == [[0, 0], [end, end]] for line in plot.lines)


def test_why_a_point_is_not_there_is_counted(tmp_path: Path) -> None:
    rows = [*server((1, 2, 4)), *unmeasured(server((8,)), "failed")]
    csv_dir = write_tables(tmp_path / "csv", rows)
    blanks = [{"measured_speedup": ""}, {"predicted_speedup": ""}, *[{}] * 6]
    drafting = [row for row in rows if row["draft"]]
    rewrite_predictions(csv_dir, [prediction_row(row, **blank) for row, blank in zip(drafting, blanks, strict=True)])
    drawn = draw_from("predicted_speedup", csv_dir)
    assert "4 of 8 planned scenarios are drawn; not drawn: failed (2), no baseline (1), no prediction (1)." in (
        drawn.caption
    )
    assert "4 of 8 not there" in drawn.words()
    assert "Predicted over measured: median 1.20; half of them are within 20% of 1." in drawn.caption


def test_records_without_speedup_are_not_no_records(tmp_path: Path) -> None:
    rows = tree_width(("chatgpt",))
    csv_dir = write_tables(tmp_path / "csv", rows)
    rewrite_predictions(csv_dir, [prediction_row(row, measured_speedup="", predicted_speedup="") for row in rows])
    drawn = draw_from("predicted_speedup", csv_dir)
    assert "no speed-up yet" in drawn.words()
    assert "no baseline (18)" in drawn.caption


def test_time_between_and_beyond_measured_rows() -> None:
    curve = CostCurve("p", None, None, None, None, "target", (1, 4, 8), (10.0, 40.0, 30.0), (1.0, 4.0, 3.0))  # type: ignore[arg-type]
    assert time_at(curve, np.array([1.0, 2.0, 4.0, 8.0])).tolist() == [10.0, 20.0, 40.0, 40.0], "never falls"
    rising = CostCurve("p", None, None, None, None, "target", (1, 4, 8), (10.0, 40.0, 60.0), (1.0, 4.0, 6.0))  # type: ignore[arg-type]
    assert time_at(rising, np.array([12.0])).tolist() == [80.0]


def test_shapes_are_those_of_the_paper() -> None:
    assert PUBLISHED_TREE.num_nodes == 21 and PUBLISHED_TREE.level_nodes[:-1] == (1, 1, 1, 3, 3, 3, 3, 3)
    assert CHAIN.num_nodes == 9 and CHAIN.name == CHAIN_NAME
    rate = np.array([0.0, 0.5, 1.0])
    assert CHAIN.tokens_per_step(rate).tolist() == pytest.approx([1.0, (1 - 0.5**9) / 0.5, 9.0])
    # 1 + r + r^2 + r^2 s (1 + r + ... + r^5), s = 1 - (1 - r)^3
    tree = 1 + 0.5 + 0.25 + 0.25 * 0.875 * (1 - 0.5**6) / 0.5
    assert PUBLISHED_TREE.tokens_per_step(rate).tolist() == pytest.approx([1.0, tree, 9.0])


@pytest.mark.parametrize("shape", [CHAIN, PUBLISHED_TREE])
def test_the_rate_of_measured_tokens_is_their_inverse(shape: TreeShape) -> None:
    for rate in (0.0, 0.3, 0.77, 1.0):
        assert shape.rate_of(float(shape.tokens_per_step(np.array(rate)))) == pytest.approx(rate, abs=1e-3)
    assert (shape.rate_of(0.5), shape.rate_of(12.0)) == (0.0, 1.0)


def test_speedup_is_the_formula_of_the_caption(tmp_path: Path) -> None:
    costs = costs_of(tmp_path)

    def t(rows: float) -> float:
        return 20 * (1 + 0.1 * (rows - 1))

    for batch_size in (1.0, 3.0, 16.0):
        tokens = 1 + 0.8 + 0.64 + 0.64 * (1 - 0.2**3) * sum(0.8**depth for depth in range(6))
        step_ms = t(21 * batch_size) + sum(t(n * batch_size) / 10 for n in (1, 1, 1, 3, 3, 3, 3, 3))
        speedup = PUBLISHED_TREE.speedup(costs, np.array(batch_size), np.array(0.8))
        assert float(speedup) == pytest.approx(tokens * t(batch_size) / step_ms)


def break_even_rate(plot: Axes, batch_size: float) -> float:
    """Where the drawn bold line crosses a batch size."""
    contours = [c for c in plot.collections if max(np.atleast_1d(c.get_linewidths()), default=0) == 2.0]
    (contour,) = contours
    bold = int(np.argmax(contour.get_linewidths()))
    vertices = contour.get_paths()[bold].vertices
    return float(np.interp(batch_size, *vertices[np.argsort(vertices[:, 0])].T))


def test_the_bold_line_is_where_the_prediction_is_one(tmp_path: Path) -> None:
    rows = server((1, 2))
    chain, tree = draw("break_even", tmp_path, rows, cost_rows(rows[1], slope=0.05)).figure.axes
    costs = costs_of(tmp_path / "again", slope=0.05)
    rates = np.linspace(0, 1, 2001)
    for plot, shape in ((chain, CHAIN), (tree, PUBLISHED_TREE)):
        for batch_size in (1.5, 4.0, 8.0):
            speedup = shape.speedup(costs, np.full_like(rates, batch_size), rates)
            assert break_even_rate(plot, batch_size) == pytest.approx(np.interp(1, speedup, rates), abs=0.005)


def test_measured_points_lie_at_their_batch_size_and_rate_with_their_speedup(tmp_path: Path) -> None:
    rows = server((1, 4))
    others = [
        rows[1] | {"scenario": "p", "batch_size": 1, "prompt_set": "piqa"},
        rows[1] | {"scenario": "s", "batch_size": 2, "decoding": "stochastic"},
        rows[1] | {"scenario": "q", "batch_size": 2, "tree_layout": "sequences"},
        rows[1] | {"scenario": "i", "batch_size": 2, "quantisation": "int8"},
        scenario("w", "width_5", "1.1.5.1.1.1.1.1", batch_size=2),
    ]
    drawn = draw("break_even", tmp_path, [*rows, *others], cost_rows(rows[1]))
    chain, tree = drawn.figure.axes
    for plot, shape, row in ((chain, CHAIN, rows[1]), (tree, PUBLISHED_TREE, rows[2])):
        points = [line.get_xydata()[0].tolist() for line in lines(plot, "o")]
        rate = shape.rate_of(tokens_per_step(row))
        assert points == [pytest.approx([1, rate]), pytest.approx([4, rate])]
    assert [text.get_text() for text in chain.texts if text.get_text() in ("1×", "1.4×")][-2:] == ["1×", "1.4×"]
    told = "4 of 9 planned scenarios are drawn; not drawn: no map (1), other tree, prompt set, decoding, model or batch"
    assert told in drawn.caption


def test_missing_points_stand_at_their_batch_size_with_the_reason(tmp_path: Path) -> None:
    rows = [*server((1,)), *unmeasured(server((2,)), "failed")]
    drawn = draw("break_even", tmp_path, rows)
    for plot in drawn.figure.axes:
        assert [text.get_position()[0] for text in plot.texts if text.get_text() == "failed"] == [2]
    assert "not drawn: failed (2)." in drawn.caption


def test_rows_beyond_the_measured_ones_are_hatched_and_said(tmp_path: Path) -> None:
    rows = server((1,))
    within = draw("break_even", tmp_path, rows, cost_rows(rows[1], last=512))
    assert not any(plot.patches for plot in within.figure.axes) and "Hatched" not in within.caption
    beyond = draw("break_even", tmp_path, rows, cost_rows(rows[1], last=64))
    assert "Hatched" in beyond.caption
    starts = [plot.patches[0].get_x() for plot in beyond.figure.axes]
    assert starts == pytest.approx([64 / 9, 64 / 21])


def test_at_most_four_placements_and_the_others_are_named(tmp_path: Path) -> None:
    rows = [*server((1,)), *offloading((1,))]
    drawn = draw("break_even", tmp_path, rows)
    titles = [title for plot in drawn.figure.axes if (title := plot.get_title(loc="left"))]
    assert titles == [f"small: {weights}" for weights in (*RESIDENT, "opt-105M, offload disk", f"{ROUNDED}int8")]
    assert len(titles) == MAX_PANELS
    assert f"No map, for want of costs or room: small: {ROUNDED}int4." in drawn.caption
    assert "8 of 14 planned scenarios are drawn; not drawn: no map (2), other tree, prompt set" in drawn.caption


def test_where_speculation_never_or_always_pays_the_map_says_so(tmp_path: Path) -> None:
    rows = server((1,))
    dear = [row | {"time_ms": 500.0 * row["rows"]} for row in cost_rows(rows[1]) if row["part"] == "draft_level"]
    target = [row for row in cost_rows(rows[1], slope=0) if row["part"] == "target"]
    assert draw("break_even", tmp_path, rows, [*target, *dear]).words().count("below 1 everywhere") == 2
    assert max(PUBLISHED_TREE.level_nodes) * LARGEST_BATCH == 48


@pytest.mark.parametrize("name", RESEARCHERS)
def test_functional_scenarios_are_counted_and_never_drawn(tmp_path: Path, name: str) -> None:
    functional = server((1, 2), "medium", purpose="functional", target="other")
    alone, beside = (draw(name, tmp_path, rows) for rows in (server((1,)), [*server((1,)), *functional]))
    assert beside.words() == alone.words()
    assert "4 functional scenarios of size medium left out" in beside.caption
    assert "functional" not in alone.caption
    alone = draw(name, tmp_path, functional)
    assert "nothing is planned to be timed" in " ".join(alone.words()).replace("\n", " ")


@pytest.mark.parametrize("name", RESEARCHERS)
def test_without_records_the_axes_say_so(tmp_path: Path, name: str) -> None:
    drawn = draw(name, tmp_path, unmeasured(server((1, 2))), [])
    assert "missing (" in drawn.caption or name == "verify_cost"
    num_shown = {"predicted_speedup": 4, "verify_cost": 1, "break_even": 1}.get(name, 2)
    assert f"no records yet (0/{num_shown})" in " ".join(drawn.words()).replace("\n", " ")
    empty = draw(name, tmp_path, [])
    assert "nothing is planned to be timed" in " ".join(empty.words()).replace("\n", " ")
