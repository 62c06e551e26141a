"""Records become figures: the tables that parsing writes are the ones that figures read."""

from __future__ import annotations

from pathlib import Path

import pytest

import figures.cli
from figures.gallery import FIGURES
from tests.data_parsing.record_files import COSTS, SyntheticScenario, csv_tables, server_grid, write_plans

EXPERIMENTS = (
    *("server", "offloading", "tree_width", "tree_width_latency"),
    *("rank_success", "parallel_decoding", "sampling"),
)
"""The long tables of config/experiments."""


def scenarios() -> list[SyntheticScenario]:
    """Some of the server experiment, and one of every table that figures single out."""
    alike = {"costs": {"0": COSTS}, "prompt_set": "alpaca"}
    return [
        *(scenario.with_(costs={"0": COSTS}) for scenario in server_grid(batch_sizes=(1, 4))),
        SyntheticScenario("greedy", experiment="rank_success", expansion=(5, 5, 5), **alike),
        SyntheticScenario("greedy_width_3_third", experiment="tree_width", expansion=(1, 1, 3, 1), **alike),
        SyntheticScenario("tree_based", experiment="parallel_decoding", expansion=(2, 1), **alike),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("num_records", [0, 5, 9])
def test_figures_of_any_part_of_the_records(tmp_path: Path, num_records: int) -> None:
    planned = scenarios()
    for scenario in planned[:num_records]:
        scenario.write(tmp_path / "raw")
    write_plans(tmp_path / "plan", planned, EXPERIMENTS)
    figure_dir = tmp_path / "figures"
    assert figures.cli.main(["--csv-dir", str(csv_tables(tmp_path)), "--output-dir", str(figure_dir)]) == 0
    drawn = {path.name for path in figure_dir.iterdir()}
    assert drawn == {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
