"""The tables of a small set of records, kept in golden/tables.

    python -m tests.data_parsing.golden_tables

writes them anew, from the repository's root; look at what changes before it is kept.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

from tests.data_parsing.record_files import (
    COSTS,
    SyntheticScenario,
    csv_tables,
    offloading_grid,
    server_grid,
    write_results,
)

GOLDEN_TABLES = Path(__file__).parent / "golden" / "tables"


def scenarios() -> list[SyntheticScenario]:
    """Every kind of scenario that a table treats apart."""
    of_prompts = {"prompt_set": "alpaca", "costs": {"0": COSTS}, "categories": ("code", "chat")}
    drawn = {"selection": "iid", "temperature": 1.0, "verifier": "mss", "accepted_per_step": 1}
    return [
        *server_grid(batch_sizes=(1, 4)),
        SyntheticScenario("transformers"),
        *offloading_grid(batch_sizes=(1,)),
        SyntheticScenario("greedy_width_1", experiment="tree_width", expansion=(1, 1, 1), **of_prompts),
        SyntheticScenario("greedy_width_3", experiment="tree_width", expansion=(1, 3, 1), **of_prompts),
        SyntheticScenario("stochastic_width_3", experiment="tree_width", expansion=(3, 1), **of_prompts, **drawn),
        SyntheticScenario("greedy", experiment="rank_success", expansion=(3, 3), **of_prompts),
        SyntheticScenario("stochastic", experiment="rank_success", expansion=(3, 3), **of_prompts, **drawn),
    ]


def write_golden(folder: Path) -> None:
    """Write the tables into a folder: one record failed, one is damaged, one of another plan, one not there."""
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        planned = scenarios()
        write_results(results, planned, tables=["parallel_decoding"])
        raw_dir = results / "raw"
        failed, damaged, other, missing = planned[5], planned[4], planned[3], planned[6]
        for scenario in (failed, missing):
            scenario.jsonl(raw_dir).unlink()
        failed.write_failure(raw_dir, "out of memory")
        damaged.write(raw_dir, costs={"0": 7})
        other.with_(fingerprint="a" * 64).write(raw_dir)
        missing.meta_json(raw_dir).unlink()
        with contextlib.redirect_stdout(io.StringIO()):
            csv_tables(results)
        shutil.copytree(results / "csv", folder, dirs_exist_ok=True)


if __name__ == "__main__":
    shutil.rmtree(GOLDEN_TABLES, ignore_errors=True)
    write_golden(GOLDEN_TABLES)
    print(GOLDEN_TABLES)
