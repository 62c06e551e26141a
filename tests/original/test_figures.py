"""Figures of the original artifact's logs: what is drawn is what the logs say, and the caption says whose it is."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from figures.drawing.style import RC
from figures.original.cli import main
from figures.original.latency import draw_latency
from figures.original.logs import MODES, Log, Logs
from figures.reading.published import Published
from report.png import description

RANGE = Published("small", "LLaMA-7B", "1 x A10", 1.5, 2.5, {})
COLUMNS = "file,family,size,mode,batch_size,num_requests,num_target_steps,per_token_latency_ms,remarks"


def log(mode: str, batch_size: int = 1, latency_ms: float | None = 10.0, **changes: str) -> Log:
    named = {"family": "server", "size": "small", "remarks": ""} | changes
    file = f"{named['family']}_{named['size']}-{batch_size}-{mode}.out"
    return Log(file=file, mode=mode, batch_size=batch_size, num_requests=8, latency_ms=latency_ms, **named)


def drawn(logs: list[Log], family: str = "server", unknown: tuple[str, ...] = ()) -> Figure:
    with mpl.rc_context(RC):
        figure = draw_latency(family, Logs(tuple(logs), unknown), [RANGE], "folder theirs")
        figure.draw_without_rendering()
    return figure


def heights(figure: Figure) -> list[float]:
    """Of the bars."""
    return [patch.get_height() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def test_bars_speedups_and_the_published_range() -> None:
    logs = [log("incremental", latency_ms=30.0), log("sequence", latency_ms=20.0), log("tree", latency_ms=12.0)]
    figure = drawn(logs)
    assert heights(figure) == [30.0, 20.0, 12.0]
    assert "1.5×" in words(figure) and "2.5×" in words(figure)
    (bracket,) = figure.axes[0].lines
    assert sorted({*bracket.get_ydata()}) == [pytest.approx(12.0), pytest.approx(20.0)]  # 30 / 2.5 and 30 / 1.5


def test_the_caption_says_whose_it_is_and_what_is_missing() -> None:
    said = words(drawn([log("incremental"), log("tree", latency_ms=None, remarks="0 entries")]))
    assert "Not measured by this project" in said
    assert "Logs: folder theirs." in said
    assert "1 of 2 logs are drawn. server_small-1-tree.out: 0 entries." in said
    assert "missing" in said


def test_files_of_other_names_are_told() -> None:
    said = words(drawn([log("tree")], unknown=("a.out", "b.out", "c.out", "d.out")))
    assert "the artifact's scripts do not give: 4 (a.out, b.out, c.out, ...)." in said


def test_no_published_range_without_incremental_decoding() -> None:
    figure = drawn([log("tree")])
    assert len(figure.axes[0].lines) == 0
    assert "×" not in words(figure)


def test_offloading_has_no_baseline() -> None:
    figure = drawn([log("sequence", family="offloading"), log("sequence", 2, 20.0, family="offloading")], "offloading")
    assert heights(figure) == [10.0, 20.0]
    assert "over FlexGen" in words(figure)
    assert len(figure.axes[0].lines) == 0


def test_a_panel_per_size() -> None:
    figure = drawn([log(mode, size=size) for size in ("large", "small") for mode in MODES])
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["small", "large"]


def test_the_command_draws_both_families(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs.csv").write_text(f"{COLUMNS}\nx.out,server,small,tree,1,8,100,12.5,\ny.out,,,,,,,,other\n")
    words = ["--csv-dir", str(tmp_path), "--output-dir", str(tmp_path / "figures"), "--source", "folder theirs"]
    assert main(words) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{family}_latency.{kind}" for family in ("server", "offloading") for kind in ("pdf", "png")}
    assert "1 (y.out)" in description((tmp_path / "figures/server_latency.png").read_bytes())
    assert "folder theirs" in description((tmp_path / "figures/server_latency.png").read_bytes())


def test_a_table_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs.csv").write_text("file,mode\n")
    assert main(["--csv-dir", str(tmp_path), "--output-dir", str(tmp_path), "--source", "x"]) == 2
    assert "columns are missing" in capsys.readouterr().err
