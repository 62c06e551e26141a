"""The tables of a fixed set of records are those that were looked at and kept, and are written within their time."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from tests.data_parsing.golden_tables import GOLDEN_TABLES, write_golden
from tests.data_parsing.record_files import COSTS, SyntheticScenario, csv_tables, write_results

MODES = {"incremental": (), "sequence": (1,) * 8, "tree": (1, 1, 3, 1, 1, 1, 1, 1), "tree_auto": None}
SETS = ("chatbot", "chatgpt", "webqa", "alpaca", "piqa")


def test_tables_are_as_they_were_kept(tmp_path: Path) -> None:
    """Otherwise: python -m tests.data_parsing.golden_tables, and a look at what changed."""
    write_golden(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in GOLDEN_TABLES.iterdir())
    for path in sorted(tmp_path.iterdir()):
        # Bytes but for the last digits of numbers, which are the processor's own.
        pd.testing.assert_frame_equal(
            pd.read_csv(path), pd.read_csv(GOLDEN_TABLES / path.name), rtol=1e-5, obj=path.name
        )
        assert path.read_text().partition("\n")[0] == (GOLDEN_TABLES / path.name).read_text().partition("\n")[0]


@pytest.mark.slow
def test_several_hundred_records_are_parsed_in_seconds(tmp_path: Path) -> None:
    """300 records of 16 prompts and two repeats; processor time, as others may use this machine as well."""
    widths = {f"width_{k}": (1, 1, k, 1, 1, 1, 1, 1) for k in range(1, 9)}
    size = {"num_prompts": 16, "num_repeats": 2, "num_steps": 22}
    scenarios = [
        SyntheticScenario(mode, batch_size, "small", "measure", "tree_width", expansion=expansion, prompt_set=name)
        for name in SETS
        for batch_size in (1, 2, 4, 8, 16)
        for mode, expansion in (MODES | widths).items()
    ]
    write_results(tmp_path, [scenario.with_(costs={"0": COSTS}, **size) for scenario in scenarios])
    started = time.process_time()
    csv_tables(tmp_path)
    assert len(scenarios) == 300
    assert time.process_time() - started < 15
