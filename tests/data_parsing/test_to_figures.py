"""Records become figures: the tables that parsing writes are the ones that figures read."""

from __future__ import annotations

from pathlib import Path

import pytest

import data_parsing.cli
import figures.cli
from figures.gallery import FIGURES
from tests.data_parsing.record_files import server_grid, write_plan


@pytest.mark.parametrize("num_records", [0, 5, 12])
def test_figures_of_any_part_of_the_records(tmp_path: Path, num_records: int) -> None:
    scenarios = server_grid()
    raw_dir, csv_dir, figure_dir = (str(tmp_path / name) for name in ("raw", "csv", "figures"))
    for scenario in scenarios[:num_records]:
        scenario.write(Path(raw_dir))
    plan = write_plan(tmp_path / "plan.json", scenarios)
    assert data_parsing.cli.main(["--plan", str(plan), "--raw-dir", raw_dir, "--output-dir", csv_dir]) == 0
    assert figures.cli.main(["--csv-dir", csv_dir, "--output-dir", figure_dir]) == 0
    drawn = {path.name for path in Path(figure_dir).iterdir()}
    assert drawn == {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
